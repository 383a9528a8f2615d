//! A cluster's sizes over time with a forecast, as SVG. The colours are readable on a light and a dark background.

use plotters::prelude::*;

use crate::{
    WriteError,
    review::{Forecast, Frame, Moment, Review},
    trend::DAY,
    words,
};

/// The names of the lines, for the legend.
pub(crate) const KEYS: [(&str, &str); 4] =
    [("quota", "#d6455d"), ("file", "#8073d6"), ("in use", "#1a936f"), ("forecast", "#d98e1f")];

const SIZE: (u32, u32) = (960, 300);
const GIB: f64 = 1_073_741_824.0;
/// More points than are visible at this width.
const MAX_POINTS: usize = 900;
const DIM: RGBColor = RGBColor(128, 133, 141);

/// The fullest member's file size, size in use and quota, and a growth forecast for a third of the range.
pub(crate) fn sizes(review: &Review, frame: Frame) -> Result<String, WriteError> {
    let lines: [fn(&Moment) -> Option<f64>; 3] =
        [|moment| moment.quota_bytes, |moment| moment.size_bytes, |moment| Some(moment.in_use_bytes)];
    let future = future(review, frame);
    let values = review.history.iter().flat_map(|(_, moment)| lines.iter().filter_map(|line| line(moment)));
    let top = values.fold(0.0, f64::max).max(1.0) / GIB * 1.05;
    let end = future.last().map_or(frame.to, |(at, _)| *at).max(frame.from + 1);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| WriteError::Chart {
            cluster: review.cluster.clone(),
            detail: error.to_string(),
        };
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            // Drop a label at the edge: it would be cut off.
            .margin_right(40)
            .x_label_area_size(24)
            .y_label_area_size(64)
            .build_cartesian_2d(frame.from..end, 0.0..top)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(DIM.mix(0.3))
            .axis_style(DIM)
            .label_style(("sans-serif", 12).into_font().color(&DIM))
            .x_labels(8)
            .y_labels(5)
            .x_label_formatter(&|at| words::date(*at))
            .y_label_formatter(&|gib| format!("{gib:.2} GiB"))
            .draw()
            .map_err(|error| failed(&error))?;
        let stride = review.history.len() / MAX_POINTS + 1;
        for (line, colour) in lines.into_iter().zip(colours()) {
            let points = review.history.iter().step_by(stride).filter_map(|(at, m)| Some((*at, line(m)? / GIB)));
            let points: Vec<_> = points.collect();
            // Draw no line across a gap.
            let hole = review.gaps.over_seconds + frame.step * i64::try_from(stride).unwrap_or(1);
            for part in points.chunk_by(|a, b| b.0 - a.0 <= hole) {
                let series = LineSeries::new(part.iter().copied(), colour.stroke_width(2));
                chart.draw_series(series).map_err(|error| failed(&error))?;
            }
        }
        if let Some(colour) = colours().last() {
            let series =
                LineSeries::new(future.into_iter().map(|(at, bytes)| (at, bytes / GIB)), colour.stroke_width(2));
            chart.draw_series(series).map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

/// Whether there is growth to draw.
pub(crate) fn has_forecast(review: &Review) -> bool {
    matches!(review.forecast, Forecast::Growing { .. }) && review.growth.is_some()
}

/// From now to the quota, or for a third of the range.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "seconds of some years")]
fn future(review: &Review, frame: Frame) -> Vec<(i64, f64)> {
    let (Forecast::Growing { days_to_quota, .. }, Some(growth)) = (&review.forecast, review.growth) else {
        return Vec::new();
    };
    let days = days_to_quota.min((frame.to - frame.from) as f64 / DAY / 3.0);
    let now = review.now.in_use_bytes;
    vec![(frame.to, now), (frame.to + (days * DAY) as i64, now + growth.per_day * days)]
}

/// Those of [`KEYS`].
fn colours() -> impl DoubleEndedIterator<Item = RGBColor> {
    KEYS.into_iter().map(|(_, hex)| {
        let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default();
        RGBColor(part(1), part(3), part(5))
    })
}
