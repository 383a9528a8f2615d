//! A cluster's state in a word, by its policy, and what is done with it.

use serde::{Deserialize, Serialize};
use strum::{EnumIter, IntoStaticStr};

use super::{
    cluster::{AlarmKind, ClusterFacts, Member, MemberFacts, MemberId, Status, Unknown},
    history::{Outcome, RunId},
    hold::{RequestPhase, RequestView},
    policy::Policy,
    reason::{Code, Reason},
    safety, story,
};

/// How the cluster is, in the order of urgency. One that cannot be reached is `Unreachable`, whatever its last facts say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ClusterCondition {
    /// NOSPACE is armed: the cluster accepts no writes.
    NoSpace,
    /// No endpoint returns the member list.
    Unreachable,
    /// A member is down, the members disagree, an alarm is armed, or runs fail: see [`ClusterState::problems`].
    NeedsAttention,
    /// A file is at `quota_usage_ratio` of its quota or more.
    NearQuota,
    /// The policy wants a member defragmented.
    Fragmented,
    NotObserved,
    Healthy,
}

impl ClusterCondition {
    /// As in the API.
    pub fn label(self) -> &'static str {
        self.into()
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::NoSpace => "no space",
            Self::Unreachable => "unreachable",
            Self::NeedsAttention => "needs attention",
            Self::NearQuota => "near quota",
            Self::Fragmented => "fragmented",
            Self::NotObserved => "not observed yet",
            Self::Healthy => "healthy",
        }
    }
}

/// What defragd does with the cluster now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ClusterActivity {
    Running,
    WaitingForApproval,
    Paused,
    /// A request is held.
    Waiting,
    Idle,
}

impl ClusterActivity {
    /// As in the API.
    pub fn label(self) -> &'static str {
        self.into()
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::WaitingForApproval => "waiting for approval",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Idle => "idle",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct StateFacts<'a> {
    /// Why the last observation did not reach the member list, if so, and what was observed; `None` before the first one.
    pub observed: Option<(Option<&'a Unknown>, Option<&'a ClusterFacts>)>,
    pub policy: &'a Policy,
    /// The member that this process is defragmenting.
    pub defragmenting: Option<MemberId>,
    pub breaker: Option<&'a Reason>,
    pub mismatch: Option<&'a Reason>,
    pub paused: bool,
    /// The last run that ended.
    pub last: Option<(RunId, &'a Outcome)>,
    pub is_active: bool,
    pub request: Option<&'a RequestView>,
}

/// A cluster's state, for the API, the page and the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    #[serde(rename = "state")]
    pub condition: ClusterCondition,
    pub activity: ClusterActivity,
    /// What needs attention, each in a sentence without a full stop.
    pub problems: Vec<String>,
    /// Why it is healthy although a file is fragmented: see [`left_alone`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_alone: Option<String>,
}

impl ClusterState {
    pub fn of(facts: &StateFacts<'_>) -> Self {
        let problems = problems(facts);
        let condition = match facts.observed {
            None if problems.is_empty() => ClusterCondition::NotObserved,
            Some((Some(_), _) | (None, None)) => ClusterCondition::Unreachable,
            Some((None, Some(seen))) if has_no_space(seen) => ClusterCondition::NoSpace,
            _ if !problems.is_empty() => ClusterCondition::NeedsAttention,
            Some((None, Some(seen))) => of_sizes(seen, facts.policy),
            None => ClusterCondition::NotObserved,
        };
        let phase = facts.request.map(|request| request.phase);
        let activity = match phase {
            _ if facts.is_active => ClusterActivity::Running,
            _ if facts.request.is_some_and(RequestView::awaits_approval) => ClusterActivity::WaitingForApproval,
            _ if facts.paused => ClusterActivity::Paused,
            Some(RequestPhase::Waiting) => ClusterActivity::Waiting,
            _ => ClusterActivity::Idle,
        };
        let seen = facts.observed.and_then(|(_, seen)| seen).filter(|_| condition == ClusterCondition::Healthy);
        let left_alone = seen.and_then(|seen| left_alone(seen, facts.policy));
        Self { condition, activity, problems, left_alone }
    }
}

fn has_no_space(facts: &ClusterFacts) -> bool {
    let mut known = facts.members.iter().filter_map(|member| member.status.as_ref().ok());
    let reports = |status: &Status| status.reported_alarms().any(|alarm| alarm.kind == AlarmKind::NoSpace);
    facts.has_alarm(AlarmKind::NoSpace) || known.any(reports)
}

fn of_sizes(facts: &ClusterFacts, policy: &Policy) -> ClusterCondition {
    let mut known = facts.members.iter().filter_map(|member| member.status.as_ref().ok());
    if known.any(|status| status.quota_usage_ratio().is_some_and(|usage| usage >= policy.quota_usage_ratio)) {
        return ClusterCondition::NearQuota;
    }
    // etcd does not defragment learners.
    let mut voters = facts.voters().filter_map(|voter| voter.status.as_ref().ok());
    if voters.any(|status| policy.need(status, false).is_ok()) {
        return ClusterCondition::Fragmented;
    }
    ClusterCondition::Healthy
}

/// Why nothing is defragmented although a voter's file is fragmented enough: too little would be freed. In a sentence
/// without a full stop.
pub fn left_alone(facts: &ClusterFacts, policy: &Policy) -> Option<String> {
    if of_sizes(facts, policy) != ClusterCondition::Healthy {
        return None;
    }
    let known = facts.voters().filter_map(|voter| Some((&voter.member, voter.status.as_ref().ok()?)));
    let is_small = |(_, status): &(&Member, &Status)| match policy.need(status, has_no_space(facts)) {
        Err(Reason::NotNeeded { fragmentation_ratio, min_ratio, .. }) => fragmentation_ratio >= min_ratio,
        _ => false,
    };
    let (member, most) = known.filter(is_small).max_by_key(|(_, status)| status.reclaimable())?;
    Some(format!(
        "{} is {:.0} % fragmented, but a defragmentation would free only {} (it is wanted from {} on: min_reclaimable)",
        member.label(),
        most.fragmentation_ratio() * 100.0,
        story::size(most.reclaimable()),
        story::size(policy.min_reclaimable),
    ))
}

/// One sentence about all armed alarms of a kind, without a full stop. `raised_by` has one entry for each, with the
/// member's name if the alarm names one.
pub fn armed(kind: AlarmKind, raised_by: impl Iterator<Item = Option<String>>) -> Option<String> {
    let raised_by: Vec<_> = raised_by.collect();
    let mut names: Vec<_> = raised_by.iter().flatten().map(String::as_str).collect();
    names.sort_unstable();
    let by = if names.is_empty() { String::new() } else { format!(", raised by {}", names.join(", ")) };
    (!raised_by.is_empty()).then(|| format!("alarm {} is armed{by}: the cluster accepts no writes", kind.as_str()))
}

/// What an operator does while such an alarm is armed.
pub fn alarm_advice(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => {
            "A run defragments the members and disarms the alarm: `defragd run --cluster NAME`; in mode observe, with `--config FILE --mode enforce --data-dir DIR`. Where little can be freed, delete keys and compact first, or raise `--quota-backend-bytes` on every member."
        }
        AlarmKind::Corrupt => Code::CorruptAlarm.advice(),
    }
}

fn problems(facts: &StateFacts<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut causes = Vec::new();
    match facts.observed {
        Some((Some(unknown), _)) => {
            problems.push(if unknown.kind.is_denial() {
                safety::no_member_list(unknown).to_string()
            } else {
                // After a time limit, it begins with what was asked for.
                let cause = unknown.detail.trim_start_matches("the member list: ");
                format!("no endpoint returns the member list: {cause}")
            });
            causes.push(unknown);
        }
        Some((None, None)) => problems.push("no endpoint returns the member list".to_owned()),
        Some((None, Some(seen))) => {
            of_members(seen, facts.defragmenting, &mut problems);
            causes.extend(seen.members.iter().filter_map(|member| member.status.as_ref().err()));
        }
        None => {}
    }
    problems.extend([facts.breaker, facts.mismatch].into_iter().flatten().map(ToString::to_string));
    if let Some((run, Outcome::Failed { reason } | Outcome::Interrupted { reason })) = facts.last {
        let reason = reason.to_string();
        // A cause that is among them already.
        let short = causes.iter().find_map(|cause| reason.strip_suffix(&format!(": {cause}")));
        problems.push(format!("the last run, {run}, failed: {}", short.unwrap_or(&reason)));
    }
    problems
}

fn of_members(facts: &ClusterFacts, defragmenting: Option<MemberId>, problems: &mut Vec<String>) {
    // A member that is being defragmented does not answer, but the others do.
    let is_busy =
        |member: &MemberFacts| defragmenting == Some(member.member.id) || member.defrag_in_flight() == Some(true);
    for kind in [AlarmKind::Corrupt, AlarmKind::NoSpace] {
        let by = facts.alarms.iter().flatten().filter(|alarm| alarm.kind == kind).map(|alarm| alarm.member);
        let name = |id| facts.member(id).map_or_else(|| id.to_string(), |by: &MemberFacts| by.member.label());
        problems.extend(armed(kind, by.map(|by| by.map(name))));
    }
    for member in facts.members.iter().filter(|member| !is_busy(member)) {
        if let Err(unknown) = &member.status {
            problems.push(format!("member {} is down: {unknown}", member.member.label()));
        }
    }
    let has_answered = facts.voters().any(|voter| voter.status.is_ok());
    if has_answered && facts.leader().is_none() {
        problems.push("the members do not agree on a leader".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;
    use crate::{
        cluster::{Alarm, UnknownKind},
        fixture,
    };

    fn state_of(facts: &ClusterFacts) -> ClusterCondition {
        state(Some((None, Some(facts))), None).condition
    }

    fn state(
        observed: Option<(Option<&Unknown>, Option<&ClusterFacts>)>,
        last: Option<(RunId, &Outcome)>,
    ) -> ClusterState {
        let policy = Policy::default();
        ClusterState::of(&StateFacts {
            observed,
            policy: &policy,
            defragmenting: None,
            breaker: None,
            mismatch: None,
            paused: false,
            last,
            is_active: false,
            request: None,
        })
    }

    fn sized(size: u64, in_use: u64) -> ClusterFacts {
        let mut facts = fixture::cluster(3);
        for index in 0..3 {
            let status = fixture::status_mut(&mut facts, index);
            (status.db_size, status.db_size_in_use) = (ByteSize::mib(size), ByteSize::mib(in_use));
        }
        facts
    }

    #[test]
    fn the_policy_decides_what_is_fragmented_and_what_is_near_the_quota() {
        use ClusterCondition::{Fragmented, Healthy, NearQuota};
        // file MiB, in use MiB -> state; the quota is 2 GiB
        for (size, in_use, expected) in [
            (500, 10, Fragmented),
            (500, 400, Healthy),
            (1639, 1600, NearQuota),
            (1638, 1600, Healthy),
            // Not worth a stall, by the policy.
            (60, 1, Healthy),
        ] {
            assert_eq!(state_of(&sized(size, in_use)), expected, "{size} MiB, {in_use} in use");
        }
    }

    #[test]
    fn a_small_file_that_is_fragmented_is_shown_with_the_reason_why_it_is_left_alone() {
        let of = |size, in_use| state(Some((None, Some(&sized(size, in_use)))), None).left_alone;
        let expected = "etcd-3 is 98 % fragmented, but a defragmentation would free only 59.0 MiB (it is wanted from 100.0 MiB on: \
             min_reclaimable)";
        assert_eq!(of(60, 1).as_deref(), Some(expected));
        assert_eq!(of(60, 50), None, "not fragmented");
        assert_eq!(of(500, 10), None, "it will be defragmented");
    }

    #[test]
    fn what_is_worse_than_fragmentation_counts_first() {
        let mut facts = sized(500, 10);
        facts.members[1].status = Err(Unknown::new(UnknownKind::Unreachable, "connection refused"));
        assert_eq!(state_of(&facts), ClusterCondition::NeedsAttention);
        let down = state(Some((None, Some(&facts))), None).problems;
        assert_eq!(down, ["member etcd-2 is down: connection refused"]);
        let unreachable =
            Reason::MemberUnreachable { member: "etcd-2".to_owned(), detail: "connection refused".to_owned() };
        let failed = Outcome::Failed { reason: unreachable };
        let last = state(Some((None, Some(&facts))), Some((RunId(3), &failed))).problems.pop();
        let short = "the last run, 3, failed: member etcd-2 does not answer Status";
        assert_eq!(last.as_deref(), Some(short), "its cause is above");
        let alarm = |id| Alarm { kind: AlarmKind::NoSpace, member: Some(MemberId(id)) };
        facts.alarms = Ok(vec![alarm(3), alarm(1)]);
        assert_eq!(state_of(&facts), ClusterCondition::NoSpace);
        let first = &state(Some((None, Some(&facts))), None).problems[0];
        assert_eq!(first, "alarm NOSPACE is armed, raised by etcd-1, etcd-3: the cluster accepts no writes");
        for (kind, problem) in [
            (UnknownKind::Unreachable, "no endpoint returns the member list: late"),
            (UnknownKind::LoginRefused, "etcd rejected the credentials: the member list: late"),
        ] {
            let unknown = Unknown::new(kind, "the member list: late");
            let away = state(Some((Some(&unknown), Some(&facts))), None);
            assert_eq!((away.condition, away.problems), (ClusterCondition::Unreachable, vec![problem.to_owned()]));
        }
        assert_eq!(state(None, None).condition, ClusterCondition::NotObserved);
        let failed = Outcome::Failed { reason: Reason::NoSpaceAgain };
        let state = state(None, Some((RunId(3), &failed)));
        assert_eq!(state.condition, ClusterCondition::NeedsAttention, "{state:?}");
        assert!(state.problems[0].starts_with("the last run, 3, failed: NOSPACE was disarmed"), "{state:?}");
    }
}
