//! `defragd report` on a real Prometheus with five weeks of history whose slopes are known.

use std::{fmt::Write, path::Path, process::Output};

use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Prometheus, Tools};

use crate::rig::binary;

const MIB: f64 = 1_048_576.0;
pub(crate) const DAY: i64 = 86_400;
/// Between two samples.
const STEP: i64 = 1_800;
pub(crate) const DAYS: i64 = 35;
/// `metric`, labels without the cluster, value at a day, first day, last day.
type Line<'a> = (&'a str, &'a str, Box<dyn Fn(f64) -> f64 + 'a>, f64, f64);

/// A cluster's history in OpenMetrics, a metric after the other.
pub(crate) struct SyntheticHistory {
    end: i64,
    /// Between two samples.
    every: i64,
    lines: Vec<(String, String)>,
}

impl SyntheticHistory {
    fn new(end: i64) -> Self {
        Self { end, every: STEP, lines: Vec::new() }
    }

    /// A cluster with the growth of [`BUSY`] and a member, a quota and a counter, sampled so seldom.
    pub(crate) fn sparse(end: i64, every: i64) -> Self {
        let mut past = Self { every, ..Self::new(end) };
        let (base, per_day, quota) = BUSY;
        let in_use = move |day: f64| base + per_day * day;
        let never = 99.0..99.0;
        past.member("busy", ("a", 0.0..=35.0), &never, [&in_use, &|day| file(in_use(day), day), &|_| quota]);
        past
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds of a month")]
    fn add(&mut self, cluster: &str, gap: std::ops::Range<f64>, (metric, labels, value, from, to): &Line<'_>) {
        let begin = self.end - DAYS * DAY;
        let mut text = String::new();
        for at in (begin..=self.end).step_by(usize::try_from(self.every).unwrap()) {
            let day = (at - begin) as f64 / DAY as f64;
            if day >= *from && day <= *to && !gap.contains(&day) {
                writeln!(text, "{metric}{{etcd_cluster=\"{cluster}\",{labels}}} {} {at}", value(day)).unwrap();
            }
        }
        self.lines.push(((*metric).to_owned(), text));
    }

    /// A member: what it has in use, its file and its quota in MiB by the day, and the days of its life.
    fn member(
        &mut self,
        cluster: &str,
        (name, life): (&str, std::ops::RangeInclusive<f64>),
        gap: &std::ops::Range<f64>,
        [in_use, file, quota]: [&dyn Fn(f64) -> f64; 3],
    ) {
        let labels = format!("member=\"{name}\",member_id=\"{name}0\"");
        let metrics =
            ["db_size_in_use_bytes", "db_size_bytes", "db_quota_bytes"].map(|m| format!("defragd_member_{m}"));
        for (metric, value) in metrics.iter().zip([in_use, file, quota]) {
            let bytes = Box::new(move |day| (value(day) * MIB).round());
            self.add(cluster, gap.clone(), &(metric, &labels, bytes, *life.start(), *life.end()));
        }
    }

    pub(crate) fn text(mut self) -> String {
        self.lines.sort_by(|a, b| a.0.cmp(&b.0));
        let mut page = String::new();
        for family in self.lines.chunk_by(|a, b| a.0 == b.0) {
            let name = &family[0].0;
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            writeln!(page, "# TYPE {} {kind}", name.trim_end_matches("_total")).unwrap();
            page.extend(family.iter().map(|(_, text)| text.as_str()));
        }
        page + "# EOF\n"
    }
}

/// Day and night, and some noise that repeats.
fn breath(day: f64) -> f64 {
    15.0 * (day * std::f64::consts::TAU).sin() + 6.0 * (day * 1_234.567).sin()
}

/// A file that fills up with free pages, until it is defragmented every five days.
fn file(in_use: f64, day: f64) -> f64 {
    in_use + 40.0 + 130.0 * (day % 5.0)
}

/// What is true of the cluster `busy`, in MiB and MiB a day.
const BUSY: (f64, f64, f64) = (700.0, 24.0, 4_096.0);

fn history(end: i64) -> SyntheticHistory {
    let mut past = SyntheticHistory::new(end);
    let never = 99.0..99.0;
    // All at once: defragmentations, a quota that was doubled, a member that was replaced, four days without data.
    let (base, per_day, quota) = BUSY;
    let in_use = move |day: f64| base + per_day * day + breath(day);
    let doubled = move |day: f64| if day < 18.0 { quota / 2.0 } else { quota };
    let gap = 10.0..14.0;
    for (name, life, less) in
        [("a", 0.0..=35.0, 25.0), ("b", 0.0..=21.0, 0.0), ("c", 0.0..=35.0, 12.0), ("d", 21.5..=35.0, 2.0)]
    {
        let mine = move |day: f64| in_use(day) - less;
        past.member("busy", (name, life), &gap, [&mine, &move |day| file(mine(day), day), &doubled]);
    }
    // A compaction after months removes half of it; the growth rate stays.
    let compacted = |day: f64| 1_500.0 + 30.0 * day + breath(day) - if day > 26.0 { 1_000.0 } else { 0.0 };
    past.member("compacted", ("a", 0.0..=35.0), &never, [&compacted, &|day| file(compacted(day), day), &|_| 8_192.0]);
    let flat = |day: f64| 900.0 + breath(day);
    past.member("flat", ("a", 0.0..=35.0), &never, [&flat, &|day| file(flat(day), day), &|_| 2_048.0]);
    let shrinking = |day: f64| 1_500.0 - 12.0 * day + breath(day);
    past.member("shrinking", ("a", 0.0..=35.0), &never, [&shrinking, &|day| file(shrinking(day), day), &|_| 2_048.0]);
    // Seven runs and one that failed; defragd restarted after the third.
    let count = |day: f64| if day < 17.0 { (day / 5.0).floor() } else { (day / 5.0).floor() - 3.0 };
    let all = |value: Box<dyn Fn(f64) -> f64>, metric, labels| (metric, labels, value, 0.0, 35.0);
    let runs = "defragd_runs_total";
    past.add("busy", never.clone(), &all(Box::new(count), runs, "trigger=\"alert\",outcome=\"succeeded\""));
    let failed = Box::new(|day: f64| if day > 29.0 { 1.0 } else { 0.0 });
    past.add("busy", never.clone(), &all(failed, runs, "trigger=\"alert\",outcome=\"failed\""));
    let reclaimed = Box::new(move |day: f64| count(day) * 1_950.0 * MIB);
    past.add("busy", never, &all(reclaimed, "defragd_reclaimed_bytes_total", "instance=\"x\""));
    past
}

struct Asked {
    prometheus: Prometheus,
    end: i64,
    dir: TempDir,
}

impl Asked {
    async fn new() -> Self {
        Self::of(history).await
    }

    async fn of(past: impl FnOnce(i64) -> SyntheticHistory) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now().as_second();
        let end = now - now.rem_euclid(3_600);
        let tools = Tools::find().unwrap();
        let prometheus = Prometheus::with_history(&tools, &past(end).text(), &dir.path().join("log")).await.unwrap();
        Self { prometheus, end, dir }
    }

    async fn report(&self, flags: &[&str]) -> Output {
        tokio::process::Command::new(binary())
            .args(["report", "--prometheus.url", self.prometheus.url(), "--range=35d"])
            .arg(format!("--end={}", Timestamp::from_second(self.end).unwrap()))
            .args(flags)
            .output()
            .await
            .unwrap()
    }

    async fn good(&self, flags: &[&str]) -> String {
        let output = self.report(flags).await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn cluster<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["clusters"].as_array().unwrap().iter().find(|one| one["cluster"] == name).unwrap()
}

fn number(value: &Value, path: &str) -> f64 {
    value.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is no number in {value:#}"))
}

fn assert_near(what: &str, found: f64, truth: f64, tolerance: f64) {
    eprintln!("{what}: {found:.3}, in truth {truth:.3} ({:+.2} %)", (found / truth - 1.0) * 100.0);
    assert!((found / truth - 1.0).abs() < tolerance, "{what}: {found} instead of {truth}");
}

#[tokio::test(flavor = "multi_thread")]
async fn days_to_quota_are_within_5_percent_of_the_truth_and_what_does_not_grow_is_stable() {
    let asked = Asked::new().await;
    // By the hour in one piece, and every half an hour in two.
    for step in ["--step=1h", "--step=30m"] {
        let report: Value = serde_json::from_str(&asked.good(&["-o", "json", step]).await).unwrap();
        let busy = cluster(&report, "busy");
        let (base, per_day, quota) = BUSY;
        let days = (quota - (base - 2.0 + per_day * 35.0)) / per_day;
        assert_near("busy, days to quota", number(busy, "/days_to_quota"), days, 0.05);
        assert_near("busy, growth", number(busy, "/growth/per_day") / MIB, per_day, 0.05);
        assert!(number(busy, "/days_at_least") <= days && days <= number(busy, "/days_at_most"), "{busy:#}");
        assert_eq!(busy["former_members"], serde_json::json!(["b"]));
        assert_eq!(busy["quota_changes"].as_array().unwrap().len(), 1, "{busy:#}");
        assert_eq!(busy["gaps"]["count"], 1);
        assert_eq!((number(busy, "/runs/outcomes/succeeded"), number(busy, "/runs/outcomes/failed")), (7.0, 1.0));
        assert_near("busy, reclaimed", number(busy, "/runs/reclaimed_bytes"), 7.0 * 1_950.0 * MIB, 0.001);

        let compacted = cluster(&report, "compacted");
        let days = (8_192.0 - (500.0 + 30.0 * 35.0)) / 30.0;
        assert_near("compacted, days to quota", number(compacted, "/days_to_quota"), days, 0.05);
        assert_eq!(compacted["steps"].as_array().unwrap().len(), 1, "{compacted:#}");

        for name in ["flat", "shrinking"] {
            assert_eq!(cluster(&report, name)["forecast"], "stable", "{:#}", cluster(&report, name));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_that_are_sparse_are_no_gaps() {
    // Every 50 minutes and a step of an hour: most steps have none within Prometheus' own five minutes. And every
    // four hours: most steps have none at all.
    for every in [3_000, 14_400] {
        let asked = Asked::of(|end| SyntheticHistory::sparse(end, every)).await;
        let report: Value = serde_json::from_str(&asked.good(&["-o", "json", "--step=1h"]).await).unwrap();
        let busy = cluster(&report, "busy");
        assert_eq!(busy["gaps"]["count"], 0, "every {every} s: {:#}", busy["gaps"]);
        assert_eq!(busy["members"], serde_json::json!(["a"]), "{busy:#}");
        let (base, per_day, quota) = BUSY;
        assert_near("days to quota", number(busy, "/days_to_quota"), (quota - base - per_day * 35.0) / per_day, 0.05);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_written_for_people_and_what_cannot_be_had_is_said() {
    let asked = Asked::new().await;
    let page = asked.good(&["--step=1h"]).await;
    assert!(page.starts_with("# etcd capacity review") && page.contains("## compacted"), "{page}");
    assert!(page.contains("1 of 8 runs failed"), "{page}");
    let one = asked.good(&["--step=1h", "--cluster=flat"]).await;
    assert!(one.contains("## flat") && !one.contains("busy"), "{one}");

    let file = asked.dir.path().join("report.html");
    let nothing = asked.good(&["--step=1h", "-o", "html", "--output-file", file.to_str().unwrap()]).await;
    assert_eq!(nothing, "");
    let html = std::fs::read_to_string(&file).unwrap();
    // For desktops and for phones.
    assert_eq!(html.matches("<svg").count(), 2 * 4);
    assert_eq!(asked.good(&["--step=1h", "-o", "csv"]).await.matches("\r\n").count(), 5);

    for (flags, code, words) in [
        (&["--cluster=nobody"][..], 1, "nobody"),
        (&["--step=0s"], 2, "at least a second"),
        (&["--prometheus.url=ftp://x"], 2, "needs the scheme http or https"),
        (&["--prometheus.url=http://127.0.0.1:1"], 1, "cannot reach"),
        (&["--prometheus.bearer-token-file=/nowhere"], 2, "/nowhere"),
    ] {
        let output = asked.report(flags).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(words), "{flags:?}: {said}");
    }
    if let Some(kept) = std::env::var_os("DEFRAGD_REPORT_KEPT") {
        std::fs::copy(&file, Path::new(&kept).join("report.html")).unwrap();
        std::fs::write(Path::new(&kept).join("report.md"), page).unwrap();
    }
}
