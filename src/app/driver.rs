//! Performs what a run asks for, one action at a time, and reports the results to it.
//!
//! Cancel-safety: the future of [`Drive::to_its_end`] must not be dropped while a Defragment is in progress: the server
//! would continue, and the journal would keep an open intent. That looks like a crash, and the next start treats it as
//! one.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    checks,
    claims::{Claim, Claims},
    ledger, log, observer,
    rpc::{defragment, send, while_watched},
};
use crate::{
    core::{
        cluster::{Fact, Member, MemberId, Unknown},
        gate::Moment,
        history::{Entry, Intent, Outcome, RunId, RunView, Trigger},
        lock::Term,
        plan::PlanHistory,
        policy::{Policy, VerifyPolicy},
        reason::Reason,
        run::{Action, Brief, DefragError, Event, NotRecorded, Run},
        verify::DataHash,
        version,
    },
    ports::{
        etcd::{Etcd, Permit},
        gate::Gate,
        journal::{Journal, JournalError},
        progress::Progress,
    },
};

/// How often an ending process tries to record the end of a run before it leaves that to the next start.
const FINISH_TRIES: u32 = 3;
/// The time between two such tries.
const FINISH_INTERVAL: Duration = Duration::from_secs(1);
/// How long after the beginning of an observation an RPC may be sent that rests on it. Members get 5 s for their list and
/// 5 s for the rest, and the adapter 2 s for its last look. What takes longer is a process that does not run.
const OBSERVATION_LIMIT: Duration = Duration::from_secs(15);

/// Requests an early end of a run: `Some` means no further member.
pub type Stop = watch::Receiver<Option<Reason>>;

/// Everything that driving a run needs.
pub struct Drive<'a, E, J> {
    /// Its number; the request is already in the journal.
    pub run: RunId,
    pub policy: Policy,
    pub gates: &'a [Gate],
    /// The newest revision that is old enough to be compacted, for a policy that compacts by age.
    pub old_revision: Option<u64>,
    /// Whether no maintenance window is open at its start.
    pub outside_window: bool,
    /// How long to wait for the end of a snapshot before the run ends and leaves the rest to the next one.
    pub snapshot_patience: Duration,
    pub etcd: &'a E,
    /// Where everything is recorded before it is done.
    pub journal: &'a J,
    pub progress: &'a dyn Progress,
    /// Which clusters this process works on.
    pub claims: &'a Claims,
    /// Under which term of the lock; `None` where there is no lock.
    pub term: Option<Term>,
    /// Whether RPCs that change something may still be sent, by the lock: checked right before each of them. Stops are
    /// checked separately.
    pub permit: &'a dyn Permit,
}

impl<E: Etcd, J: Journal> Drive<'_, E, J> {
    pub async fn to_its_end(self, mut stop: Stop) -> Outcome {
        let begun = Instant::now();
        let outcome = match self.begin().await {
            Ok(view) => {
                let compared = only_compares(&view);
                let outcome = self.perform(view, begun, &mut stop).await;
                // An alert that joined meanwhile wants more than the comparison.
                if compared
                    && outcome == Outcome::NothingToDo
                    && let Ok(Some(view)) = self.journal.run(self.run).await
                    && !only_compares(&view)
                {
                    self.perform(view, begun, &mut stop).await
                } else {
                    outcome
                }
            }
            Err(error) => Outcome::Refused { reason: error.into() },
        };
        self.finish(outcome, begun, &stop).await
    }

    /// Reads the run back, and records that it starts.
    async fn begin(&self) -> Result<RunView, JournalError> {
        let view = self.journal.run(self.run).await?;
        let view = view.ok_or_else(|| JournalError::Read(format!("run {} is not there", self.run)))?;
        let (mode, compares) = (self.policy.mode, self.policy.verify == VerifyPolicy::Hash);
        self.journal.append(self.run, Entry::Started { mode, term: self.term, compares }).await?;
        Ok(view)
    }

    async fn brief(&self, view: &RunView) -> Result<Brief, JournalError> {
        let ledger = ledger::read(self.journal, &view.request.cluster).await?;
        Ok(Brief {
            policy: self.policy.clone(),
            gates: self.gates.iter().map(|gate| gate.rule.clone()).collect(),
            past: PlanHistory::of_run(&ledger, view),
            only_compares: only_compares(view),
            snapshot_patience: self.snapshot_patience,
            outside_window: self.outside_window,
            old_revision: self.old_revision,
        })
    }

    async fn perform(&self, view: RunView, begun: Instant, stop: &mut Stop) -> Outcome {
        let brief = match self.brief(&view).await {
            Ok(brief) => brief,
            Err(error) => return Outcome::Refused { reason: error.into() },
        };
        let mut baselines = view.baselines();
        let (mut run, mut action) = Run::resume(brief, &view);
        let mut members: BTreeMap<MemberId, Member> = BTreeMap::new();
        let mut quotas = BTreeMap::new();
        let mut intent: Option<Intent> = view.open_intent.clone();
        let mut claim: Option<Claim> = None;
        let mut planned = false;
        let mut observed_at = begun;
        loop {
            let event = match action {
                Action::Observe { after, pages } => {
                    pause(after, stop).await;
                    observed_at = Instant::now();
                    let facts = observer::observe(self.etcd, pages, &quotas).await;
                    if let Ok(facts) = &facts {
                        quotas = observer::quotas(facts);
                        if members.is_empty() {
                            log::unread_pages(&view.request.cluster, view.id, facts);
                            self.progress.versions(&version::of_cluster(facts));
                        }
                        if claim.as_ref().is_none_or(|claim: &Claim| claim.id() != facts.cluster_id) {
                            match self.claims.take(facts.cluster_id, &view.request.cluster) {
                                Ok(taken) => claim = Some(taken),
                                Err(reason) => run.forbid(reason),
                            }
                        }
                        members = facts.members.iter().map(|facts| (facts.member.id, facts.member.clone())).collect();
                    }
                    Event::Observed(facts)
                }
                Action::RecordStep(step) => Event::Recorded(self.write(Entry::Step(step)).await),
                Action::Perform(step) => {
                    self.progress.step(&step);
                    match self.withheld(stop, observed_at) {
                        Some(reason) => Event::Withheld(reason),
                        None => Event::Performed(send(self.etcd, &members, &step).await),
                    }
                }
                Action::RecordIntent(decided) => {
                    let written = self.write(Entry::Intent(decided.clone())).await;
                    intent = Some(decided);
                    Event::Recorded(written)
                }
                Action::Defragment { member, deadline } => match (members.get(&member), &intent) {
                    (Some(member), Some(intent)) => {
                        self.progress.defragmenting(intent);
                        let stop = stop.clone();
                        let permit = || self.withheld(&stop, observed_at);
                        let sent = defragment(self.etcd, member, &permit, deadline, self.watcher(intent));
                        let (answer, unavailable) = if intent.non_blocking {
                            let (answer, unavailable) = while_watched(self.etcd, member, sent).await;
                            (answer, Some(unavailable))
                        } else {
                            (sent.await, None)
                        };
                        if answer.is_ok() {
                            self.progress.defragmented(intent);
                        }
                        Event::DefragReturned { answer, unavailable }
                    }
                    _ => {
                        let detail = "not sent: the member is unknown".to_owned();
                        let answer = Err(DefragError::Answered(detail));
                        Event::DefragReturned { answer, unavailable: None }
                    }
                },
                Action::RecordResult(result) => {
                    let written = self.write(Entry::Result(result.clone())).await;
                    self.progress.member_ended(&result);
                    Event::Recorded(written)
                }
                Action::Hash { revision, members: voters, limit } => Event::Hashed(
                    self.hashes(revision, voters.iter().filter_map(|id| members.get(id)), limit, stop).await,
                ),
                Action::RecordVerification(verification) => {
                    let written = self.write(Entry::Verified(verification.clone())).await;
                    self.progress.verified(&verification);
                    Event::Recorded(written)
                }
                Action::CheckGates { moment } => self.check_gates(moment, &mut baselines, stop).await,
                Action::Finish(outcome) => return outcome,
            };
            if let Some(reason) = stop.borrow().clone() {
                run.stop(reason);
            }
            action = run.next(begun.elapsed(), event);
            if let Some(plan) = run.plan().filter(|plan| !planned && plan.blocked.is_none()) {
                self.progress.planned(plan);
                planned = true;
            }
            self.report(&mut run, begun.elapsed());
        }
    }

    /// What the run waits for, and whether it did not do its first choice.
    fn report(&self, run: &mut Run, now: Duration) {
        if let Some(reason) = run.waiting_for() {
            self.progress.waiting(reason);
        }
        if let Some((healthy_for, pause)) = run.settling(now) {
            self.progress.settling(healthy_for, pause);
        }
        if let Some(reason) = run.take_fallback() {
            self.progress.fell_back(&reason);
        }
    }

    /// Why no RPC that changes something may be sent now; includes stops requested since the run was last informed, and
    /// that the process was stopped itself and knows nothing of the time since.
    fn withheld(&self, stop: &Stop, observed_at: Instant) -> Option<Reason> {
        let age = observed_at.elapsed();
        let stale = || (age > OBSERVATION_LIMIT).then_some(Reason::StaleObservation { age });
        stop.borrow().clone().or_else(|| self.permit.refusal()).or_else(stale)
    }

    fn watcher<'b>(&'b self, intent: &'b Intent) -> impl Fn(Duration) + 'b {
        move |elapsed| self.progress.still_defragmenting(intent, elapsed)
    }

    async fn write(&self, entry: Entry) -> Result<(), NotRecorded> {
        self.journal.append(self.run, entry).await.map_err(|error| NotRecorded(error.to_string()))
    }

    /// All gates of the moment at once, until a stop is requested: they only read.
    async fn check_gates(&self, moment: Moment, baselines: &mut BTreeMap<String, Value>, stop: &mut Stop) -> Event {
        let results = tokio::select! {
            biased;
            // Cancel-safe: a check that is dropped has changed nothing.
            results = checks::run(self.gates, moment, baselines) => results,
            () = stopped(stop) => Vec::new(),
        };
        let mut written = Ok(());
        for result in &results {
            self.progress.gate(result);
            if let Err(error) = self.write(Entry::Gate(result.clone())).await {
                written = Err(error);
            }
            if let Some(baseline) = &result.baseline {
                baselines.insert(result.gate.clone(), baseline.clone());
            }
        }
        Event::GatesChecked { results, written }
    }

    /// One member after the other, until a stop is requested: while a member hashes, it may apply no writes.
    async fn hashes<'b>(
        &self,
        revision: u64,
        members: impl Iterator<Item = &'b Member>,
        limit: Duration,
        stop: &mut Stop,
    ) -> Vec<(MemberId, Fact<DataHash>)> {
        let mut hashes = Vec::new();
        for member in members {
            self.progress.hashing(member);
            let answer = tokio::select! {
                biased;
                // Cancel-safe: a hash changes nothing, and a server that computes an abandoned one finishes by itself.
                answer = timeout(limit, self.etcd.hash(member, revision)) => answer,
                () = stopped(stop) => break,
            };
            hashes.push((member.id, answer.unwrap_or_else(|_| Err(Unknown::timed_out("HashKV", limit)))));
        }
        hashes
    }

    /// Records the end of the run, for as long as it takes: until then the cluster counts as dealt with. Only an ending
    /// process leaves it to the next start.
    async fn finish(&self, outcome: Outcome, begun: Instant, stop: &Stop) -> Outcome {
        self.progress.finished(&outcome, begun.elapsed());
        let mut attempts = 0u32;
        while let Err(error) = self.journal.append(self.run, Entry::Finished(outcome.clone())).await {
            attempts = attempts.saturating_add(1);
            if attempts == 1 {
                tracing::error!(run = self.run.0, %error, "cannot record the end of the run; retrying until it is recorded");
            }
            let process_ends = stop.borrow().as_ref().is_some_and(Reason::ends_the_process);
            if attempts >= FINISH_TRIES && process_ends {
                tracing::error!(run = self.run.0, %error, "cannot record the end of the run; the next start of defragd will");
                break;
            }
            sleep(FINISH_INTERVAL).await;
        }
        outcome
    }
}

/// Whether the alerts behind a run that has touched no member are resolved: only a comparison may be left of the request.
fn only_compares(view: &RunView) -> bool {
    let is_withdrawn = view.request.trigger != Trigger::Manual && view.open_alerts().next().is_none();
    is_withdrawn && view.members.is_empty() && view.open_intent.is_none()
}

/// Returns when a stop is requested; never if the sender is gone.
async fn stopped(stop: &mut Stop) {
    if stop.wait_for(Option::is_some).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits, or until a stop is requested: then the pause between members does not matter any more.
async fn pause(time: Duration, stop: &mut Stop) {
    if time.is_zero() {
        return;
    }
    let stopped = stop.borrow().is_some();
    if stopped {
        // The wait paces the observations of a server at work; it must not become a busy loop.
        sleep(time).await;
        return;
    }
    tokio::select! {
        biased;
        () = sleep(time) => {}
        // Cancel-safe: a watch keeps its value. A closed channel is no stop.
        changed = stop.changed() => if changed.is_err() { sleep(time).await },
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
