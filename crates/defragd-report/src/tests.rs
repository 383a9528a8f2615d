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
    Report::new(frame, clusters)
}

/// A cluster with one member whose sizes, in MiB, follow these lines over 30 days.
fn cluster(name: &str, in_use: f64, per_day: f64, size: f64, quota: f64) -> Review {
    let mib = 1_048_576.0;
    let line = |base: f64, per_day: f64| {
        (0..=720_u32).map(|hour| (i64::from(hour) * 3_600, (base + per_day * f64::from(hour) / 24.0) * mib)).collect()
    };
    let member = MemberHistory {
        name: "m1".to_owned(),
        in_use: line(in_use, per_day),
        size: line(size, 0.0),
        quota: line(quota, 0.0),
    };
    let frame = Frame { from: 0, to: 30 * 86_400, step: 3_600 };
    review(name, &History { members: vec![member], ..History::default() }, frame).unwrap()
}

#[test]
fn the_most_urgent_cluster_is_first_and_a_summary_is_before_all() {
    let frame = Frame { from: 0, to: 30 * 86_400, step: 3_600 };
    let clusters = vec![
        cluster("calm", 500.0, 0.0, 510.0, 2_048.0),
        cluster("soon", 1_500.0, 10.0, 1_810.0, 2_048.0),
        cluster("sooner", 1_500.0, 15.0, 1_960.0, 2_048.0),
        cluster("idle", 500.0, 0.0, 1_500.0, 2_048.0),
        cluster("over", 500.0, 0.0, 2_060.0, 2_048.0),
    ];
    let report = Report::new(frame, clusters);
    let order: Vec<_> = report.clusters.iter().map(|review| review.cluster.as_str()).collect();
    assert_eq!(order, ["over", "sooner", "soon", "idle", "calm"]);
    let summary = "4 of 5 clusters need attention: over (file above its quota), sooner (quota reached in 6.5 days), \
                   soon (quota reached in 24.8 days), idle (no runs).";
    let markdown = report.written(Format::Markdown).unwrap();
    assert_eq!(markdown.lines().nth(2), Some(summary));
    let html = report.written(Format::Html).unwrap();
    let first = html.split("<p").nth(1).unwrap();
    assert!(first.contains(summary), "{first}");
    let over = &report.clusters[0].recommendations[0];
    assert_eq!(over.action, "defragment m1 now: `defragd run`");
    assert!(
        over.reason.contains("the file of m1 is at 100.6 % of its quota (2.0 GiB of 2.0 GiB, 500.0 MiB in use)"),
        "{over:?}"
    );
}

#[test]
fn a_report_without_a_problem_says_so() {
    let report = Report::new(Frame { from: 0, to: 1, step: 1 }, vec![cluster("calm", 500.0, 0.0, 510.0, 2_048.0)]);
    let markdown = report.written(Format::Markdown).unwrap();
    assert_eq!(markdown.lines().nth(2), Some("1 cluster, none needs attention."));
}

#[test]
fn the_forecast_reaches_the_quota_or_says_when_it_will() {
    let frame = Frame { from: 0, to: 30 * 86_400, step: 3_600 };
    // In 14.5 days, and in 72.5, which is more than the range.
    for (per_day, caption) in
        [(20.0, "forecast: quota on 1970-02-14 (in 14.5 days)"), (4.0, "forecast: quota on 1970-04-13 (in 72.5 days)")]
    {
        let review = cluster("x", 2_048.0 - 290.0 - 30.0 * per_day, per_day, 2_000.0, 2_048.0);
        let html = Report::new(frame, vec![review]).written(Format::Html).unwrap();
        assert!(html.contains(caption), "no {caption:?}");
        let ends: Vec<_> = ["#D6455D", "#D98E1F"].iter().map(|colour| end_of(&html, colour)).collect();
        let reaches = ends[0].1 == ends[1].1;
        assert_eq!(reaches, per_day > 10.0, "{ends:?}");
    }
}

/// Where the first line of this colour ends, in pixels.
fn end_of(html: &str, colour: &str) -> (i64, i64) {
    let line = html.split("<polyline").find(|line| line.contains(colour)).unwrap();
    let points = line.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
    let (x, y) = points.split_whitespace().last().unwrap().split_once(',').unwrap();
    (x.parse().unwrap(), y.parse().unwrap())
}

#[test]
fn axes_have_round_times_and_sizes_that_differ() {
    // 20 MiB over a month, and a day of the same.
    for (days, size) in [(30, 20.0), (1, 20.0)] {
        let frame = Frame { from: 30 * 86_400 - days * 86_400 + 123, to: 30 * 86_400 + 123, step: 3_600 };
        let html = Report::new(frame, vec![cluster("x", size, 0.0, size, 64.0)]).written(Format::Html).unwrap();
        for svg in html.split("<svg").skip(1) {
            let labels: Vec<_> = svg
                .split("<text")
                .skip(1)
                .map(|text| text.split_once('>').unwrap().1.split('<').next().unwrap().trim())
                .collect();
            assert!((7..=16).contains(&labels.len()), "{labels:?}");
            let unique: std::collections::BTreeSet<_> = labels.iter().collect();
            assert_eq!(unique.len(), labels.len(), "{labels:?}");
            assert!(labels.contains(&"40 MiB"), "{labels:?}");
            let time = if days == 1 { ":00" } else { "01-" };
            assert!(labels.iter().filter(|label| label.contains(time)).count() >= 3, "{labels:?}");
        }
    }
}

#[test]
fn a_spreadsheet_takes_no_name_for_a_formula_and_numbers_stay_numbers() {
    let frame = Frame { from: 0, to: 30 * 86_400, step: 3_600 };
    for name in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"] {
        let csv =
            Report::new(frame, vec![cluster(name, 1_000.0, -5.0, 1_010.0, 2_048.0)]).written(Format::Csv).unwrap();
        let row = csv.split_once("\r\n").unwrap().1;
        assert!(row.starts_with(&format!("\"'{name}\",stable,")), "{row}");
        // It shrinks: a negative number, and no text.
        assert!(row.contains(",-5242880,"), "{row}");
    }
    let csv = Report::new(frame, vec![cluster("a=b", 1_000.0, 0.0, 1_010.0, 2_048.0)]).written(Format::Csv).unwrap();
    assert!(csv.contains("\r\n\"a=b\","), "{csv}");
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
    // For desktops and for phones.
    assert_eq!(page.matches("<svg").count(), 2 * 2);
    assert!(page.contains("prefers-color-scheme") && page.contains("&lt;script&gt;"));
    for forbidden in ["<script", "src=", "href=", "url(", "@import", "<link", "<img"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    // The only address is SVG's namespace, which is never fetched.
    assert_eq!(page.matches("http://").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    assert!(!page.contains("https://"));
    // Quota, file, in use; and, only for the cluster that has one, the forecast with the quota that it meets.
    assert_eq!(page.matches("<polyline").count() - page.matches("points=\"\"").count(), 2 * 8 + axes(&page));
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
