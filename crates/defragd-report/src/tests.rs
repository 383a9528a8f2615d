//! A report in each of its formats.

use serde_json::Value;

use super::*;
use crate::review::{Frame, History, MemberHistory, review};

const GIB: f64 = 1_073_741_824.0;
const EVIL: &str = "<script>alert(1)</script>|a";

fn sample() -> Report {
    let frame = Frame { from: 0, to: 30 * 86_400, step: 3_600 };
    let line = |from: f64, per_hour: f64| {
        (0..=720_u32)
            .map(|hour| (i64::from(hour) * 3_600, (from + per_hour * f64::from(hour)) * GIB))
            .collect::<Vec<_>>()
    };
    let member = |per_hour: f64| MemberHistory {
        name: "m1".to_owned(),
        size: line(1.5, per_hour),
        in_use: line(1.0, per_hour),
        quota: line(4.0, 0.0),
    };
    let history = |per_hour: f64| History { members: vec![member(per_hour)], ..History::default() };
    let clusters = [(EVIL, 0.002), ("flat", 0.0)];
    let clusters = clusters.iter().filter_map(|(name, slope)| review(name, &history(*slope), frame)).collect();
    Report { frame, clusters }
}

#[test]
fn the_table_has_a_row_for_each_cluster_and_a_name_cannot_break_it() {
    let page = sample().written(Format::Markdown).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 4);
    let cells = |row: &str| row.replace("\\|", "").matches('|').count();
    assert!(rows.iter().all(|row| cells(row) == 11), "{rows:#?}");
    assert!(rows[2].contains("32.5 (32.5 to 32.5)"), "{}", rows[2]);
    assert!(rows[3].ends_with("| - | 0 (0) |"), "{}", rows[3]);
    assert!(rows[3].contains("stable") && page.contains("**stable: nothing to do**"), "{page}");
}

#[test]
fn the_html_fetches_nothing_runs_nothing_and_has_a_chart_for_each_cluster() {
    let page = sample().written(Format::Html).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    assert!(page.contains("prefers-color-scheme") && page.contains("&lt;script&gt;"));
    for forbidden in ["<script", "src=", "href=", "url(", "@import", "<link", "<img"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    // The only address is SVG's namespace, which is never fetched.
    assert_eq!(page.matches("http://").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert!(!page.contains("https://"));
    // Quota, file, in use; and the forecast only for the cluster that has one.
    assert_eq!(page.matches("<polyline").count() - page.matches("points=\"\"").count(), 7 + axes(&page));
}

/// The polylines that are axes and their marks.
fn axes(page: &str) -> usize {
    page.match_indices("<polyline").filter(|(at, _)| page[*at..*at + 120].contains("#80858D")).count()
}

#[test]
fn csv_and_json_have_the_same_figures() {
    let csv = sample().written(Format::Csv).unwrap();
    let lines: Vec<_> = csv.split("\r\n").collect();
    let heads: Vec<_> = lines[0].split(',').collect();
    let first: Vec<_> = lines[1].split(',').collect();
    let json: Value = serde_json::from_str(&sample().written(Format::Json).unwrap()).unwrap();
    let cluster = &json["clusters"][0];
    assert_eq!((first[1], &cluster["forecast"]), ("growing", &Value::from("growing")));
    for (head, path) in [("days_to_quota", "/days_to_quota"), ("growth_bytes_per_day", "/growth/per_day")] {
        let column = heads.iter().position(|name| *name == head).unwrap();
        let expected = cluster.pointer(path).unwrap().as_f64().unwrap();
        let found: f64 = first[column].parse().unwrap();
        assert!((found - expected).abs() < 1e-3, "{head}: {found} and {expected}");
    }
    assert_eq!(json["clusters"][1]["forecast"], "stable");
    assert_eq!(json["clusters"][1]["recommendations"][0]["kind"], "stable");
}
