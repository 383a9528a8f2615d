//! The capacity review: queries Prometheus for what defragd exported, and reviews each cluster.
//!
//! It reads only Prometheus: neither etcd nor the journal.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    adapters::outgoing::{CallError, Grid, Prometheus, RangeSeries, SeriesLabels},
    report::{
        Report,
        review::{Frame, History, MemberHistory, review},
    },
};

/// The label of a cluster in all of our metrics.
const CLUSTER: &str = "etcd_cluster";
/// The queried metrics. `max by` merges replicas that observe the same member.
const MEMBER_METRICS: [&str; 3] =
    ["defragd_member_db_size_bytes", "defragd_member_db_size_in_use_bytes", "defragd_member_db_quota_bytes"];
const RECLAIMED: &str = "defragd_reclaimed_bytes_total";
const RUNS: &str = "defragd_runs_total";
/// How far back Prometheus itself looks for a sample.
const LOOKBACK_SECONDS: i64 = 300;
/// If there would be more points, the step must be longer.
const MAX_POINTS: i64 = 200_000;
/// A month by the hour: enough for the trend, and about a second of work for Prometheus.
const USUAL_POINTS: i64 = 720;

#[derive(Clone, Debug)]
pub struct Question {
    /// Where it ends, in seconds since 1970.
    pub to: i64,
    pub range: Duration,
    /// The time between two samples; derived from the range if absent.
    pub step: Option<Duration>,
}

impl Question {
    /// The times: whole steps back from the end.
    pub fn frame(&self) -> Result<Frame, String> {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let range = seconds(self.range);
        let step = self.step.map_or_else(|| (range / USUAL_POINTS).max(60), seconds);
        if step < 1 || range < step {
            return Err(format!(
                "a range of {range} s and a step of {step} s: the step is at least a second, the range at least a step"
            ));
        }
        if range / step > MAX_POINTS {
            return Err(format!("{} points are too many: at most {MAX_POINTS}, with a longer --step", range / step));
        }
        Ok(Frame { from: self.to.saturating_sub(range / step * step).max(0), to: self.to, step })
    }
}

/// Queries and reviews. `progress` receives how many of how many queries are done.
pub async fn report(
    prometheus: &Prometheus,
    frame: Frame,
    cluster: Option<&str>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Report, CallError> {
    let grid = Grid { start: frame.from, end: frame.to, step: frame.step };
    let all = grid.pieces() * (MEMBER_METRICS.len() + 2);
    let mut done = 0;
    let mut piece_done = || {
        done += 1;
        progress(done, all);
    };
    // As a JSON string, which is also a valid PromQL string.
    let filter = cluster.map_or_else(String::new, |name| format!("{{{CLUSTER}={}}}", serde_json::Value::from(name)));
    // The newest sample of the whole step: samples that are scraped or kept less often than Prometheus looks back would
    // be missed by most steps, or by all.
    let newest = |metric: &str| format!("last_over_time({metric}{filter}[{}s])", frame.step.max(LOOKBACK_SECONDS));
    let mut members = Vec::new();
    for metric in MEMBER_METRICS {
        let query = format!("max by ({CLUSTER}, member, member_id) ({})", newest(metric));
        members.push(prometheus.range(&query, grid, &mut piece_done).await?);
    }
    let reclaimed = prometheus.range(&newest(RECLAIMED), grid, &mut piece_done).await?;
    let runs = prometheus.range(&newest(RUNS), grid, &mut piece_done).await?;
    let histories = histories(members, reclaimed, runs);
    let clusters = histories.iter().filter_map(|(name, history)| review(name, history, frame)).collect();
    Ok(Report::new(frame, clusters))
}

/// Where the samples of one of [`MEMBER_METRICS`] are stored.
type Field = fn(&mut MemberHistory) -> &mut Vec<(i64, f64)>;

fn histories(members: Vec<RangeSeries>, reclaimed: RangeSeries, runs: RangeSeries) -> BTreeMap<String, History> {
    let of = |labels: &SeriesLabels, name: &str| labels.get(name).cloned().unwrap_or_default();
    let mut by_member: BTreeMap<SeriesLabels, MemberHistory> = BTreeMap::new();
    let fields: [Field; 3] = [|member| &mut member.size, |member| &mut member.in_use, |member| &mut member.quota];
    for (series, field) in members.into_iter().zip(fields) {
        for (labels, points) in series {
            *field(by_member.entry(labels).or_default()) = points;
        }
    }
    let mut histories: BTreeMap<String, History> = BTreeMap::new();
    for (labels, member) in by_member {
        let name = of(&labels, "member");
        histories.entry(of(&labels, CLUSTER)).or_default().members.push(MemberHistory { name, ..member });
    }
    for (labels, points) in reclaimed {
        histories.entry(of(&labels, CLUSTER)).or_default().reclaimed.push(points);
    }
    for (labels, points) in runs {
        histories.entry(of(&labels, CLUSTER)).or_default().runs.push((of(&labels, "outcome"), points));
    }
    histories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_follows_the_range_and_the_range_ends_now() {
        let question = |days: u64, step: Option<u64>| Question {
            to: 1_700_000_123,
            range: Duration::from_secs(days * 86_400),
            step: step.map(Duration::from_secs),
        };
        let frame = question(30, None).frame().unwrap();
        assert_eq!((frame.step, frame.to, frame.to - frame.from), (3_600, 1_700_000_123, 30 * 86_400));
        assert_eq!(question(1, None).frame().unwrap().step, 120);
        // --help says that it is never less than a minute by itself.
        assert_eq!(Question { range: Duration::from_hours(1), ..question(1, None) }.frame().unwrap().step, 60);
        assert_eq!(question(365, Some(300)).frame().unwrap().step, 300);
        assert!(question(365, Some(1)).frame().unwrap_err().contains("too many"));
        assert!(question(1, Some(0)).frame().unwrap_err().contains("at least a second"));
        assert!(question(1, Some(100_000)).frame().unwrap_err().contains("at least a step"));
    }
}
