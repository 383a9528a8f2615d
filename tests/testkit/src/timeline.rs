//! Which member defragmented when, from the members' own logs. Pure.
//!
//! etcd logs the start of each Defragment before it does anything, and its end before it answers the client, each with
//! the time. The members of a cluster are on one machine with one clock, so their logs can be compared, and no defrag is
//! missed, however quick it is and however busy the machine.

use std::time::Duration;

use jiff::Timestamp;

/// One defrag that a member finished while it was watched. Times count from the start of the watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defrag {
    /// The member's index.
    pub member: usize,
    /// When the member began it.
    pub began: Duration,
    /// When the member had finished it.
    pub ended: Duration,
    /// How long it took.
    pub took: Duration,
}

/// What was seen of a whole cluster.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    finished: Vec<Defrag>,
    /// In which a member was certainly defragmenting, whatever became of it.
    spans: Vec<(Duration, Duration, usize)>,
}

impl Timeline {
    /// Builds it from what each member has logged since the watch began, at that time of the Unix epoch.
    pub(crate) fn build(begin: Duration, logs: &[String]) -> Self {
        let mut timeline = Self::default();
        for (member, log) in logs.iter().enumerate() {
            timeline.add(begin, member, log);
        }
        timeline.finished.sort_by_key(|defrag| (defrag.ended, defrag.began));
        timeline
    }

    fn add(&mut self, begin: Duration, member: usize, log: &str) {
        // Those under way. A second one queues behind the first and then defragments again.
        let mut open: Vec<Duration> = Vec::new();
        let mut last = Duration::ZERO;
        for line in log.lines() {
            let Some(at) = time(line).map(|at| at.saturating_sub(begin)) else { continue };
            let says = |message: &str| line.contains(&format!("\"msg\":\"{message}\""));
            if says("starting defragment") {
                open.push(at);
            } else if says("finished defragment") {
                // Without a begin: it was under way when the watch began.
                let began = if open.is_empty() { Duration::ZERO } else { open.remove(0) };
                self.finished.push(Defrag { member, began, ended: at, took: at.saturating_sub(began) });
                self.spans.push((began, at, member));
            } else if says("failed to defragment") {
                let began = if open.is_empty() { Duration::ZERO } else { open.remove(0) };
                self.spans.push((began, at, member));
            } else if says("starting an etcd server") {
                // What was under way ended with the process before, which lived at least to its last line.
                self.spans.extend(open.drain(..).map(|began| (began, last, member)));
            }
            last = at;
        }
        self.spans.extend(open.into_iter().map(|began| (began, last, member)));
    }

    /// Every finished defrag, in the order of their ends.
    pub fn finished(&self) -> &[Defrag] {
        &self.finished
    }

    /// The members in the order in which their defrags ended; one that was defragmented twice is there twice.
    pub fn order(&self) -> Vec<usize> {
        self.finished.iter().map(|defrag| defrag.member).collect()
    }

    /// How many members were defragmenting at the same time, at most, also those whose defrag failed or was cut off.
    pub fn max_in_flight(&self) -> usize {
        let members_at = |at: Duration| {
            let within = |(from, to, _): &&(Duration, Duration, usize)| *from <= at && at < *to;
            let mut members: Vec<usize> = self.spans.iter().filter(within).map(|span| span.2).collect();
            members.sort_unstable();
            members.dedup();
            members.len()
        };
        let most = self.spans.iter().map(|span| members_at(span.0)).max().unwrap_or(0);
        most.max(usize::from(!self.spans.is_empty()))
    }
}

/// The time of a line of zap's JSON, since the Unix epoch: `"ts":"2026-11-29T05:41:07.123Z"`, or with an offset as `+0100`.
fn time(line: &str) -> Option<Duration> {
    let (_, rest) = line.split_once("\"ts\":\"")?;
    let (text, _) = rest.split_once('"')?;
    let at = text.parse().or_else(|_| Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", text)).ok()?;
    Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log whose lines are so many milliseconds after the watch began.
    fn log(lines: &[(u64, &str)]) -> String {
        let line = |(at, msg): &(u64, &str)| {
            format!(
                "{{\"level\":\"info\",\"ts\":\"1970-01-01T00:00:{:02}.{:03}Z\",\"msg\":\"{msg}\"}}\n",
                at / 1000,
                at % 1000
            )
        };
        lines.iter().map(line).collect()
    }

    fn build(logs: &[&[(u64, &str)]]) -> Timeline {
        Timeline::build(Duration::ZERO, &logs.iter().map(|lines| log(lines)).collect::<Vec<_>>())
    }

    const START: &str = "starting defragment";
    const END: &str = "finished defragment";
    const BOOT: &str = "starting an etcd server";

    #[test]
    fn one_after_the_other_is_one_in_flight() {
        let timeline = build(&[&[(60, START), (90, "x"), (110, END)], &[(10, START), (60, END)]]);
        assert_eq!(timeline.order(), [1, 0]);
        assert_eq!(timeline.max_in_flight(), 1);
        let took = Duration::from_millis(50);
        assert_eq!(timeline.finished()[0], Defrag { member: 1, began: took / 5, ended: took * 6 / 5, took });
    }

    #[test]
    fn members_in_flight_at_once_are_an_overlap_also_when_one_fails_or_is_cut_off_or_goes_on() {
        for end in ["failed to defragment", END, "x"] {
            let timeline = build(&[&[(10, START), (60, END)], &[(59, START), (70, end)]]);
            assert_eq!(timeline.max_in_flight(), 2, "{end}");
        }
        let cut = build(&[&[(10, START), (60, END)], &[(20, START), (30, "x"), (90, BOOT)]]);
        assert_eq!((cut.max_in_flight(), cut.order()), (2, vec![0]));
        // It died by 30 at the earliest, so nothing is proven from then on.
        let dead = build(&[&[(40, START), (60, END)], &[(20, START), (30, "x"), (90, BOOT)]]);
        assert_eq!(dead.max_in_flight(), 1);
    }

    #[test]
    fn one_that_queues_behind_another_ends_after_it_on_the_same_member() {
        let timeline = build(&[&[(10, START), (20, START), (60, END), (90, END)]]);
        assert_eq!((timeline.order(), timeline.max_in_flight()), (vec![0, 0], 1));
    }

    #[test]
    fn nothing_logged_is_nothing_in_flight_and_a_time_is_read_with_its_offset() {
        assert_eq!(build(&[&[], &[(5, "x")]]).max_in_flight(), 0);
        let at = |ts: &str| time(&format!("{{\"ts\":\"{ts}\"}}")).map(|at| at.as_millis());
        assert_eq!(at("2026-11-29T05:41:07.123Z"), Some(1_795_930_867_123));
        assert_eq!(at("2026-11-29T06:41:07.123+0100"), at("2026-11-29T05:41:07.123456Z"));
        assert_eq!(at("2026-11-29T00:41:07.123-05:00"), at("2026-11-29T05:41:07.123Z"));
        assert_eq!(at("2000-02-29T00:00:00.000Z"), Some(951_782_400_000));
        assert_eq!((at("yesterday"), time("plain text")), (None, None));
    }
}
