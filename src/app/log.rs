//! Logs a run: one line per step, the message constant, the facts in fields.

use std::time::Duration;

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::{
    core::{
        cluster::ClusterFacts,
        gate::{GateResult, OnFailure},
        history::{Intent, MemberEnd, MemberResult, Outcome, RunId, RunStep},
        page,
        plan::{Decision, Plan},
        reason::Reason,
        story,
        verify::{HashVerdict, Verification},
        version,
    },
    ports::progress::Progress,
};

/// Logs the steps of one run.
pub struct LogProgress {
    cluster: String,
    run: RunId,
    /// The reason that was logged last: a wait is reported about once a second.
    waits_for: Mutex<Option<&'static str>>,
}

impl LogProgress {
    pub fn new(cluster: String, run: RunId) -> Self {
        Self { cluster, run, waits_for: Mutex::default() }
    }
}

impl Progress for LogProgress {
    fn planned(&self, plan: &Plan) {
        let (cluster, run) = (&self.cluster, self.run.0);
        let order: Vec<_> = plan.pending().map(|(step, _)| step.member.as_str()).collect();
        info!(cluster, run, order = order.join(","), "planned");
        for warning in &plan.warnings {
            warn!(cluster, run, code = warning.label(), %warning, "planned with a warning");
        }
        for step in &plan.steps {
            if let Decision::Skip { reason } = &step.decision {
                info!(cluster, run, member = step.member, code = reason.label(), %reason, "member skipped");
            }
        }
    }

    fn step(&self, step: &RunStep) {
        let (cluster, run) = (&self.cluster, self.run.0);
        match step {
            RunStep::Compact { revision } => info!(cluster, run, revision, "compacting"),
            RunStep::MoveLeader { from, member, .. } => {
                info!(cluster, run, %from, to = member, "transferring leadership");
            }
            RunStep::DisarmNoSpace { member, .. } => info!(cluster, run, member, "disarming NOSPACE"),
        }
    }

    fn defragmenting(&self, intent: &Intent) {
        *self.waits_for.lock() = None;
        info!(
            cluster = self.cluster,
            run = self.run.0,
            member = intent.member,
            member_id = %intent.member_id,
            leader = intent.is_leader,
            db_size_bytes = intent.before.db_size.0,
            db_size_in_use_bytes = intent.before.db_size_in_use.0,
            "defragmenting"
        );
    }

    fn still_defragmenting(&self, intent: &Intent, elapsed: Duration) {
        info!(
            cluster = self.cluster,
            run = self.run.0,
            member = intent.member,
            seconds = elapsed.as_secs(),
            "still defragmenting"
        );
    }

    fn waiting(&self, reason: &Reason) {
        // The text may change with its figures, such as the time waited.
        if self.waits_for.lock().replace(reason.label()) == Some(reason.label()) {
            return;
        }
        info!(cluster = self.cluster, run = self.run.0, code = reason.label(), %reason, "waiting");
    }

    fn fell_back(&self, reason: &Reason) {
        let (cluster, run) = (&self.cluster, self.run.0);
        warn!(cluster, run, code = reason.label(), %reason, "not transferring leadership: defragmenting the leader as it is");
    }

    fn member_ended(&self, result: &MemberResult) {
        let (cluster, run, member) = (&self.cluster, self.run.0, &result.intent.member);
        let before = result.intent.before.db_size.0;
        match &result.end {
            MemberEnd::Defragmented { after, took, unavailable } => info!(
                cluster,
                run,
                member,
                before_bytes = before,
                after_bytes = after.db_size.0,
                seconds = took.as_secs_f64(),
                unavailable_seconds = unavailable.map(|time| time.as_secs_f64()),
                "defragmented"
            ),
            MemberEnd::Failed { reason, .. } => {
                error!(cluster, run, member, code = reason.label(), %reason, "member failed");
            }
            MemberEnd::Unconfirmed { after } => {
                let after_bytes = after.map(|after| after.db_size.0);
                warn!(
                    cluster,
                    run,
                    member,
                    before_bytes = before,
                    after_bytes,
                    "member is idle; an earlier process was defragmenting it"
                );
            }
            MemberEnd::NotSent { reason } => {
                warn!(cluster, run, member, code = reason.label(), %reason, "Defragment was not sent");
            }
        }
    }

    fn gate(&self, result: &GateResult) {
        let (cluster, run, gate, moment) = (&self.cluster, self.run.0, &result.gate, result.moment.label());
        let (detail, seconds) = (&result.detail, result.took.as_secs_f64());
        match (result.passed, result.on_failure) {
            (true, _) => info!(cluster, run, gate, moment, seconds, detail, "gate passed"),
            (false, OnFailure::Warn) => warn!(
                cluster,
                run, gate, moment, seconds, detail, "gate failed; continuing, because on_failure is warn"
            ),
            (false, OnFailure::Stop) => error!(cluster, run, gate, moment, seconds, detail, "gate failed"),
        }
    }

    fn verified(&self, verification: &Verification) {
        let (cluster, run, revision) = (&self.cluster, self.run.0, verification.revision);
        let said = story::verified(verification);
        match verification.verdict {
            HashVerdict::Equal => info!(cluster, run, revision, "the members hold the same data"),
            HashVerdict::Different => error!(cluster, run, revision, detail = said, "the members hold different data"),
            HashVerdict::Unknown { .. } => {
                warn!(cluster, run, revision, detail = said, "could not compare the members' data");
            }
        }
    }

    fn finished(&self, outcome: &Outcome, took: Duration) {
        let (cluster, run, seconds) = (&self.cluster, self.run.0, took.as_secs_f64());
        if let Some(reason) = outcome.reason() {
            warn!(cluster, run, seconds, outcome = outcome.label(), code = reason.label(), %reason, advice = reason.to_do_for(cluster), "run ended");
        } else if let Outcome::Observed { members, outside_window } = outcome {
            let (members, outcome) = (members.join(","), outcome.label());
            info!(cluster, run, seconds, outcome, members, outside_window, "run ended");
        } else {
            info!(cluster, run, seconds, outcome = outcome.label(), "run ended");
        }
    }
}

/// Warns about each member whose metrics page cannot be read.
pub fn unread_pages(cluster: &str, run: RunId, facts: &ClusterFacts) {
    for detail in facts.members.iter().filter_map(page::unread) {
        warn!(cluster, run = run.0, detail, "cannot read the metrics page");
    }
}

/// Warns about each known defect of a version that members run, and about a version without support.
pub fn version_warnings(cluster: &str, version: &str) {
    if let Some(since) = version::support_ended(version) {
        warn!(cluster, version, since, "this version of etcd gets no more fixes: upgrade it");
    }
    for defect in version::warnings(version) {
        warn!(cluster, version, defect, "this version of etcd has a defect that affects defragmentation");
    }
}
