//! A run, put together from its entries.

use std::collections::BTreeMap;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{
    AlertKey, Approval, Cancellation, Entry, ForwardedRequest, Intent, MemberEnd, MemberResult, Outcome, Record,
    Request, RunId, RunStep,
};
use crate::{explain::Explained, gate::GateResult, lock::Term, reason::Reason, verify::Verification};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    pub id: RunId,
    /// The request that it serves.
    #[serde(flatten)]
    pub request: Request,
    pub accepted_at: Timestamp,
    /// The alerts of the request that no longer fire.
    pub resolved: Vec<AlertKey>,
    pub approved: Option<Approval>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<Cancellation>,
    #[serde(skip)]
    pub cancelled_at: Option<Timestamp>,
    /// The other replica that has it.
    pub forwarded_to: Option<ForwardedRequest>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// How it ended; `None` while it waits or runs.
    #[serde(flatten, serialize_with = "explained")]
    pub outcome: Option<Outcome>,
    /// The intent that has no result yet: this member may be defragmenting.
    pub open_intent: Option<Intent>,
    /// The attempts, in order.
    pub members: Vec<MemberResult>,
    pub steps: Vec<RunStep>,
    pub gates: Vec<GateResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    /// Of the lock, under which it was started last; `None` before, and without a lock.
    #[serde(skip)]
    pub(crate) term: Option<Term>,
    #[serde(skip)]
    pub(crate) compares: bool,
    /// Whether a member was defragmented whose data is to be compared and was not since; `None` if none was.
    #[serde(skip)]
    pub(crate) uncompared: Option<bool>,
    /// How often it was begun: more than once after a crash.
    pub starts: u32,
    /// How many earlier runs had the same result, changed nothing, and were deleted.
    pub repeats: u32,
    /// When the first of them was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats_since: Option<Timestamp>,
}

/// With the reason explained; and with another name for the members of a run in mode observe, because `members` are the
/// attempts.
#[expect(clippy::ref_option, reason = "serde's signature")]
fn explained<'a, S: Serializer>(outcome: &'a Option<Outcome>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Shown<'a> {
        outcome: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Explained<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        would_defragment: Option<&'a [String]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        outside_window: Option<bool>,
    }
    let shown = |outcome: &'a Outcome| {
        let observed = match outcome {
            Outcome::Observed { members, outside_window } => Some((members.as_slice(), *outside_window)),
            _ => None,
        };
        Shown {
            outcome: outcome.label(),
            reason: outcome.reason().map(Explained::from),
            would_defragment: observed.map(|(members, _)| members),
            outside_window: observed.map(|(_, outside_window)| outside_window),
        }
    };
    outcome.as_ref().map(shown).serialize(serializer)
}

impl RunView {
    /// A run that has only been accepted.
    pub(crate) fn accepted(id: RunId, accepted_at: Timestamp, request: Request) -> Self {
        Self {
            id,
            request,
            accepted_at,
            resolved: Vec::new(),
            approved: None,
            cancelled: None,
            cancelled_at: None,
            forwarded_to: None,
            started_at: None,
            finished_at: None,
            outcome: None,
            open_intent: None,
            members: Vec::new(),
            steps: Vec::new(),
            gates: Vec::new(),
            verification: None,
            term: None,
            compares: false,
            uncompared: None,
            starts: 0,
            repeats: 0,
            repeats_since: None,
        }
    }

    /// Folds the records of one journal, in order, into its runs, in order.
    pub fn fold(records: impl IntoIterator<Item = Record>) -> Vec<Self> {
        let mut runs: Vec<Self> = Vec::new();
        for Record { run, at, entry } in records {
            if let Entry::Accepted(request) = entry {
                runs.push(Self::accepted(run, at, request));
                continue;
            }
            let Some(view) = runs.iter_mut().rev().find(|view| view.id == run) else { continue };
            match entry {
                Entry::Accepted(_) => {}
                Entry::Joined { alerts } => {
                    // Alerts that have fired since then are not part of the cancellation.
                    view.cancelled = None;
                    view.resolved.retain(|key| !alerts.contains(key));
                    view.request.join(alerts);
                }
                Entry::Resolved { alerts } => view.resolved.extend(alerts),
                Entry::Approved { by, requested, members } => {
                    if requested {
                        // As with alerts.
                        view.cancelled = None;
                        view.request.join_operators(members, view.approved.is_some());
                    }
                    // The first one counts.
                    view.approved = view.approved.take().or(Some(Approval { by, at }));
                }
                Entry::Cancelled(cancellation) => {
                    view.cancelled = view.cancelled.take().or(Some(cancellation));
                    view.cancelled_at = Some(at);
                }
                Entry::Forwarded(to) => view.forwarded_to = Some(to),
                Entry::Started { term, compares, .. } => {
                    (view.term, view.compares) = (term, compares);
                    view.started_at = view.started_at.or(Some(at));
                    view.starts += 1;
                }
                Entry::Step(step) => view.steps.push(step),
                Entry::Gate(result) => view.gates.push(result),
                Entry::Verified(verification) => {
                    view.verification = Some(verification);
                    view.uncompared = Some(false);
                }
                Entry::Intent(intent) => view.open_intent = Some(intent),
                Entry::Result(result) => {
                    view.open_intent = None;
                    if view.compares && !matches!(result.end, MemberEnd::NotSent { .. }) {
                        view.uncompared = Some(true);
                    }
                    view.members.push(result);
                }
                Entry::Finished(outcome) => {
                    view.finished_at = Some(at);
                    view.outcome = Some(outcome);
                }
                Entry::Repeats { times, since } => {
                    view.repeats = times;
                    view.repeats_since = Some(since);
                }
            }
        }
        runs
    }

    /// The reason if the request was cancelled or removed.
    pub fn withdrawn(&self) -> Option<Reason> {
        let Cancellation { by, reason } = self.cancelled.clone()?;
        Some(Reason::Cancelled { by, reason })
    }

    /// The alerts behind it that are not known to be resolved.
    pub fn open_alerts(&self) -> impl Iterator<Item = &AlertKey> {
        self.request.alerts.iter().filter(|key| !self.resolved.contains(key))
    }

    /// The baselines that the gates recorded before the run.
    pub fn baselines(&self) -> BTreeMap<String, serde_json::Value> {
        let given = self.gates.iter().filter_map(|result| Some((result.gate.clone(), result.baseline.clone()?)));
        given.collect()
    }

    /// Bytes by which the files of all members became smaller.
    pub fn reclaimed(&self) -> ByteSize {
        ByteSize(self.members.iter().map(|member| member.reclaimed().0).sum())
    }

    /// How many members were defragmented, however the run ended.
    pub fn defragmented(&self) -> usize {
        self.members.iter().filter(|member| member.is_defragmented()).count()
    }

    /// See [`Outcome::is_broken_off`].
    pub fn is_broken_off(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_broken_off)
    }

    pub fn touched_a_member(&self) -> bool {
        self.members.iter().any(|member| !matches!(member.end, MemberEnd::NotSent { .. })) || self.open_intent.is_some()
    }

    /// Whether it found that nothing is left to do, or its mode allows nothing.
    pub(crate) fn is_satisfied(&self) -> bool {
        // After a mismatch the work of the run is done; the rest is the operator's.
        matches!(
            self.outcome,
            Some(Outcome::Succeeded | Outcome::Mismatched { .. } | Outcome::NothingToDo | Outcome::Observed { .. })
        )
    }

    /// The times up to which everything is decided after this run: its due time, and its end, because what is due while
    /// a request of a schedule is open joins it. Each counts by itself: the clock may have been wrong at one of them.
    pub(crate) fn decides_until(&self) -> impl Iterator<Item = Timestamp> {
        let due = self.request.alerts.iter().filter_map(AlertKey::due).max();
        let looked = self.started_at.is_some() || self.is_satisfied();
        let over = self.finished_at.max(self.cancelled_at).filter(|_| due.is_some());
        due.or(looked.then_some(self.accepted_at)).into_iter().chain(over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, request::Trigger};

    #[test]
    fn an_operator_who_joins_a_waiting_run_does_not_narrow_what_was_approved_and_widens_nothing_else() {
        let request = |trigger, members: &[&str]| {
            let members = members.iter().map(ToString::to_string).collect();
            Entry::Accepted(Request { cluster: "a".to_owned(), trigger, alerts: Vec::new(), members })
        };
        let joined = |first: Entry, approved: bool, members: &[&str]| {
            let members = members.iter().map(ToString::to_string).collect();
            let approved = approved.then(|| Entry::approved("ann".to_owned()));
            let second = Entry::Approved { by: "bob".to_owned(), requested: true, members };
            let entries = [first].into_iter().chain(approved).chain([second]);
            let record = |entry| Record { run: RunId(1), at: Timestamp::UNIX_EPOCH, entry };
            let run = RunView::fold(entries.map(record)).remove(0);
            assert_eq!(run.request.trigger, Trigger::Manual);
            (run.request.members, run.approved.map(|approval| approval.by).unwrap_or_default())
        };
        let is = |members: &[&str], by: &str| (members.iter().map(ToString::to_string).collect(), by.to_owned());
        assert_eq!(
            joined(request(Trigger::Alert, &[]), false, &["1"]),
            is(&["1"], "bob"),
            "the alert waits for the rest"
        );
        assert_eq!(joined(request(Trigger::Alert, &[]), true, &["1"]), is(&[], "ann"));
        assert_eq!(joined(request(Trigger::Alert, &[]), false, &[]), is(&[], "bob"));
        assert_eq!(joined(request(Trigger::Manual, &["1"]), true, &["2", "1"]), is(&["1", "2"], "ann"));
        assert_eq!(joined(request(Trigger::Manual, &["1"]), true, &[]), is(&[], "ann"));
        assert_eq!(joined(request(Trigger::Manual, &[]), true, &["1"]), is(&[], "ann"));
    }

    #[test]
    fn a_member_whose_cluster_did_not_recover_in_time_counts_as_defragmented() {
        let reason = Reason::ConnectionLost { member: "etcd-3".to_owned(), detail: "reset".to_owned() };
        let smaller = MemberEnd::Failed { reason: reason.clone(), after: Some(fixture::sizes(48, 47)), took: None };
        let untouched = MemberEnd::Failed { reason, after: None, took: None };
        let ends = [smaller, untouched, MemberEnd::NotSent { reason: Reason::ShuttingDown }];
        let request = Request::new("a", Trigger::Manual);
        let mut run = RunView::accepted(RunId(15), Timestamp::UNIX_EPOCH, request);
        run.members = ends.map(|end| fixture::attempt(3, fixture::sizes(251, 47), end)).to_vec();
        assert_eq!((run.defragmented(), run.reclaimed()), (1, ByteSize::mib(203)));
    }
}
