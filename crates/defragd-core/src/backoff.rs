//! How long to wait after failures, and when the last attempt on a member keeps automation from another one. An
//! operator who starts a run, or resumes the cluster, is not held back.

use std::time::Duration;

use bytesize::ByteSize;

use super::{
    cluster::Status,
    history::{MemberEnd, MemberResult},
    policy::{MIN_GAIN_UNDER_NO_SPACE, Need, Policy},
    reason::Reason,
    version,
};

/// The waits after the first, second, … failure in a row. The last one repeats.
const RETRY_AFTER: [Duration; 4] =
    [Duration::from_mins(1), Duration::from_mins(5), Duration::from_mins(15), Duration::from_hours(1)];
/// Less than this part of the free space, reclaimed, counts as nothing.
const NO_GAIN_PART: u64 = 10;

/// How long to wait after a failure that was preceded by this many in a row.
pub fn retry_after(failures_before: usize) -> Duration {
    RETRY_AFTER[failures_before.min(RETRY_AFTER.len() - 1)]
}

/// Why a member that needs a defragmentation is skipped anyway.
pub fn held_back(last: &MemberResult, status: &Status, policy: &Policy, need: Need) -> Option<Reason> {
    needs_operator(last, status).or_else(|| no_gain(last, status, least_gain(policy, need)))
}

/// How much more must be free than after an attempt without gain before the next one.
fn least_gain(policy: &Policy, need: Need) -> ByteSize {
    match need {
        Need::NoSpace => MIN_GAIN_UNDER_NO_SPACE,
        Need::QuotaPressure => policy.quota_min_reclaimable,
        Need::Fragmented | Need::Rule => policy.min_reclaimable,
    }
}

/// A full disk does not free itself, and each further attempt may crash the member.
fn needs_operator(last: &MemberResult, status: &Status) -> Option<Reason> {
    let MemberEnd::Failed { reason, .. } = &last.end else { return None };
    let lethal = match reason {
        Reason::DiskFull { .. } => true,
        // A full disk crashes these versions before they can report it.
        Reason::ConnectionLost { .. } => version::dies_of_a_full_disk(&status.version),
        _ => false,
    };
    lethal.then(|| Reason::NeedsOperator { member: last.intent.member.clone(), detail: reason.to_string() })
}

/// The last defragmentation reclaimed nothing, and since then less than `least_gain` has become free. One that did not
/// finish, or whose sizes are unknown, does not count.
fn no_gain(last: &MemberResult, status: &Status, least_gain: ByteSize) -> Option<Reason> {
    let MemberEnd::Defragmented { after, .. } = last.end else { return None };
    let before = last.intent.before;
    let expected = before.db_size.0.saturating_sub(before.db_size_in_use.0);
    let reclaimed = last.reclaimed();
    if reclaimed.0 > 0 && reclaimed.0.saturating_mul(NO_GAIN_PART) >= expected {
        return None;
    }
    let left = after.db_size.0.saturating_sub(after.db_size_in_use.0);
    let needed = ByteSize(left.saturating_add(least_gain.0));
    let reclaimable = status.reclaimable();
    (reclaimable < needed).then_some(Reason::NoGain { reclaimed, expected: ByteSize(expected), reclaimable, needed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, sizes};

    fn attempt(end: MemberEnd) -> MemberResult {
        fixture::attempt(1, sizes(1000, 100), end)
    }

    fn label(last: &MemberResult, status: &Status) -> Option<&'static str> {
        held_back(last, status, &Policy::default(), Need::Fragmented).map(|reason| reason.label())
    }

    fn now(size: u64, in_use: u64) -> Status {
        Status { db_size: ByteSize::mib(size), db_size_in_use: ByteSize::mib(in_use), ..fixture::status(1) }
    }

    #[test]
    fn an_attempt_without_gain_is_not_repeated_until_more_is_free() {
        let done = |after| attempt(MemberEnd::Defragmented { after, took: Duration::from_secs(1), unavailable: None });
        // (sizes after the last attempt, sizes now) -> skipped; before it were 1000 MiB with 100 in use.
        let table = [
            ((100, 100), (1000, 100), false),
            ((1000, 100), (1000, 100), true),
            ((990, 100), (990, 100), true),
            ((900, 100), (900, 100), false),
            // 99 MiB more are free, and then 100.
            ((1000, 100), (1000, 1), true),
            ((1000, 200), (1000, 100), false),
            ((1000, 200), (1000, 101), true),
            // It grew in the meantime: more is free than then.
            ((1000, 100), (1200, 100), false),
        ];
        for (after, status, expected) in table {
            let last = done(sizes(after.0, after.1));
            let expected = expected.then_some("no_gain");
            assert_eq!(label(&last, &now(status.0, status.1)), expected, "{after:?}, {status:?}");
        }
    }

    #[test]
    fn an_attempt_that_was_cut_short_says_nothing_about_the_gain() {
        let same = Some(sizes(1000, 100));
        assert_eq!(label(&attempt(MemberEnd::Unconfirmed { after: same }), &now(1000, 100)), None);
        let reason = Reason::DeadlineExceeded { member: "etcd-1".to_owned(), deadline: Duration::from_secs(1) };
        assert_eq!(label(&attempt(MemberEnd::Failed { reason, after: same, took: None }), &now(1000, 100)), None);
    }

    #[test]
    fn a_full_disk_waits_for_an_operator_whether_reported_or_shown_by_a_crash() {
        let member = || "etcd-1".to_owned();
        let failed = |reason| attempt(MemberEnd::Failed { reason, after: None, took: None });
        let full = failed(Reason::DiskFull { member: member(), detail: "no space left on device".to_owned() });
        let lost = failed(Reason::ConnectionLost { member: member(), detail: "eof".to_owned() });
        let of = |version: &str| Status { version: version.to_owned(), ..now(1000, 100) };
        for (version, after_lost) in
            [("3.4.23", Some("needs_operator")), ("3.5.16", Some("needs_operator")), ("3.5.17", None), ("3.6.5", None)]
        {
            assert_eq!(label(&full, &of(version)), Some("needs_operator"), "{version}");
            assert_eq!(label(&lost, &of(version)), after_lost, "{version}");
        }
    }
}
