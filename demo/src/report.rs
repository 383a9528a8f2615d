//! The final report and its checks. Pure functions.

use std::fmt::Write;

use testkit::{MemberStatus, Timeline, WriterReport};

use crate::console::{mib, seconds};

/// A defragmented file is hardly larger than its data in use; the load keeps writing meanwhile.
const SIZE_PER_IN_USE_PERCENT: u64 = 130;

/// One thing that must hold.
#[derive(Debug)]
pub(crate) struct Check {
    /// What was checked, and the finding.
    pub(crate) text: String,
    /// Whether it holds.
    pub(crate) holds: bool,
}

/// Each member before and after.
pub(crate) fn table(names: &[String], before: &[MemberStatus], after: &[MemberStatus]) -> String {
    let mut text =
        String::from("  MEMBER   ROLE        SIZE BEFORE       IN USE    SIZE AFTER       IN USE    RECLAIMED\n");
    for ((name, old), new) in names.iter().zip(before).zip(after) {
        let role = if old.is_leader { "leader" } else { "follower" };
        let back = old.size.saturating_sub(new.size);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {name:<8} {role:<8} {:>14} {:>12} {:>13} {:>12} {:>12}",
            mib(old.size),
            mib(old.in_use),
            mib(new.size),
            mib(new.in_use),
            mib(back)
        );
    }
    text
}

/// What the client load observed.
pub(crate) fn writer(report: &WriterReport) -> String {
    format!(
        "the client's load: {} keys acknowledged, {} attempts made again on another member, slowest {}, longest gap {}",
        report.acked,
        report.retried,
        seconds(report.slowest),
        seconds(report.longest_gap)
    )
}

/// The checks on the databases and on the order in the servers' own logs.
pub(crate) fn checks(names: &[String], before: &[MemberStatus], after: &[MemberStatus], seen: &Timeline) -> Vec<Check> {
    let mut checks: Vec<Check> = names
        .iter()
        .zip(after)
        .map(|(name, new)| Check {
            text: format!("{name} has {} with {} in use (less than 1.3 times that)", mib(new.size), mib(new.in_use)),
            holds: new.size * 100 < new.in_use * SIZE_PER_IN_USE_PERCENT,
        })
        .collect();
    let order = seen.order();
    let mut each_once = order.clone();
    each_once.sort_unstable();
    checks.push(Check {
        text: format!("each member was defragmented once, in the order {}", named(names, &order)),
        holds: each_once.iter().copied().eq(0..names.len()),
    });
    let leader = before.iter().position(|status| status.is_leader);
    checks.push(Check {
        text: format!("the leader ({}) came last", leader.map_or("none", |index| names[index].as_str())),
        holds: leader.is_some() && order.last().copied() == leader,
    });
    checks.push(Check {
        text: format!("at most one member at a time was being defragmented ({})", seen.max_in_flight()),
        holds: seen.max_in_flight() == 1,
    });
    checks
}

/// Members' names in the order of their indexes.
pub(crate) fn named(names: &[String], order: &[usize]) -> String {
    order.iter().map(|&index| names[index].as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(size: u64, in_use: u64, is_leader: bool) -> MemberStatus {
        MemberStatus {
            id: 1,
            leader: 1,
            is_leader,
            is_learner: false,
            version: "3.5.16".to_owned(),
            size,
            in_use,
            raft_index: 1,
            applied_index: 1,
            term: 1,
            errors: Vec::new(),
        }
    }

    #[test]
    fn nothing_defragmented_fails_the_checks() {
        let names = vec!["etcd-1".to_owned()];
        let before = [status(400 << 20, 80 << 20, true)];
        let failed: Vec<String> = checks(&names, &before, &before, &Timeline::default())
            .into_iter()
            .filter(|c| !c.holds)
            .map(|c| c.text)
            .collect();
        assert_eq!(failed.len(), 4, "{failed:?}");
    }

    #[test]
    fn the_table_has_a_line_for_each_member() {
        let names = vec!["etcd-1".to_owned(), "etcd-2".to_owned()];
        let before = [status(400 << 20, 80 << 20, true), status(400 << 20, 80 << 20, false)];
        let after = [status(80 << 20, 80 << 20, true), status(80 << 20, 80 << 20, false)];
        let text = table(&names, &before, &after);
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("leader") && text.contains("320.0 MiB"), "{text}");
    }
}
