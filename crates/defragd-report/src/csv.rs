//! The report as CSV (RFC 4180), one line per cluster, plain bytes and days: for spreadsheets and scripts.

use crate::{Report, review::Forecast};

const HEADS: &str = "cluster,forecast,days_to_quota,days_at_least,days_at_most,in_use_bytes,size_bytes,quota_bytes,\
                     growth_bytes_per_day,growth_low,growth_high,fragmentation_ratio,fragmentation_per_day,\
                     days_to_fragmentation_return,reclaimable_bytes,reclaimed_bytes,reclaimed_per_run_bytes,runs,\
                     runs_failed,recommendations";

pub(crate) fn table(report: &Report) -> String {
    let mut lines = vec![HEADS.to_owned()];
    for review in &report.clusters {
        let (forecast, days) = match &review.forecast {
            Forecast::Growing { days_to_quota, days_at_least, days_at_most } => {
                ("growing", [Some(*days_to_quota), Some(*days_at_least), Some(*days_at_most)])
            }
            Forecast::GrowingWithoutQuota => ("growing_without_quota", [None; 3]),
            Forecast::Stable => ("stable", [None; 3]),
            Forecast::Unknown { .. } => ("unknown", [None; 3]),
        };
        let growth = review.growth;
        let numbers = days.into_iter().chain([
            Some(review.now.in_use_bytes),
            review.now.size_bytes,
            review.now.quota_bytes,
            growth.map(|growth| growth.per_day),
            growth.map(|growth| growth.low),
            growth.map(|growth| growth.high),
            Some(review.fragmentation.ratio),
            review.fragmentation.trend.map(|trend| trend.per_day),
            review.fragmentation.days_to_return,
            Some(review.reclaimable_bytes),
            Some(review.runs.reclaimed_bytes),
            review.runs.reclaimed_per_run_bytes,
            Some(review.runs.all()),
            Some(review.runs.count(&["failed", "interrupted"])),
        ]);
        let advice: Vec<_> =
            review.recommendations.iter().map(|one| format!("{}: {}", one.action, one.reason)).collect();
        let cells = [quoted(&review.cluster), forecast.to_owned()]
            .into_iter()
            .chain(numbers.map(number))
            .chain([quoted(&advice.join("; "))]);
        lines.push(cells.collect::<Vec<_>>().join(","));
    }
    lines.join("\r\n") + "\r\n"
}

fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map_or_else(String::new, |value| ((value * 1e6).round() / 1e6).to_string())
}

/// Spreadsheets take text with such a beginning for a formula, unless an apostrophe precedes it.
fn quoted(text: &str) -> String {
    let apostrophe = if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { "'" } else { "" };
    format!("\"{apostrophe}{}\"", text.replace('"', "\"\""))
}
