//! Performs what a run asks for, one action at a time, and tells it what happened.
//!
//! Cancel-safety: the future of [`drive`] must not be dropped while a Defragment is out: the server goes
//! on all the same, and the journal would keep an open intent. That is what a crash looks like, and the
//! next start treats it so.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, interval_at, sleep, timeout, timeout_at},
};

use super::{
    claims::{Claim, Claims},
    observer,
};
use crate::{
    core::{
        cluster::{Alarm, AlarmKind, Member, MemberId},
        history::{Entry, Intent, Outcome, RunId, Step},
        policy::Policy,
        reason::Reason,
        run::{Action, DefragError, Event, Run},
    },
    ports::{etcd::Etcd, journal::Journal, progress::Progress},
};

/// How often a watcher hears that a Defragment is still out.
const REMINDER: Duration = Duration::from_secs(5);
/// How long a step may take. etcd's own limit for a proposal is 7 s.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// How often the end of a run is written before it is left to the next start to close it.
const FINISH_TRIES: u32 = 3;

/// Asks for an early end of a run: `Some` means no further member.
pub type Stop = watch::Receiver<Option<Reason>>;

/// Drives one run to its end. The request is in the journal already.
pub async fn drive<E: Etcd, J: Journal>(
    run_id: RunId,
    policy: Policy,
    etcd: &E,
    journal: &J,
    progress: &dyn Progress,
    claims: &Claims,
    mut stop: Stop,
) -> Outcome {
    let begun = Instant::now();
    let mode = policy.mode;
    let Ok(Some(view)) = journal.run(run_id).await else {
        let detail = format!("run {run_id} cannot be read back");
        let outcome = Outcome::Refused { reason: Reason::JournalFailed { detail } };
        return finish(run_id, journal, progress, outcome, begun).await;
    };
    if let Err(error) = journal.append(run_id, Entry::Started { mode }).await {
        let outcome = Outcome::Refused { reason: Reason::JournalFailed { detail: error.to_string() } };
        return finish(run_id, journal, progress, outcome, begun).await;
    }
    let (mut run, mut action) = Run::resume(policy, &view);
    let mut members: BTreeMap<MemberId, Member> = BTreeMap::new();
    let mut intent: Option<Intent> = view.open_intent.clone();
    let mut claim: Option<Claim> = None;
    let mut planned = false;
    loop {
        let event = match action {
            Action::Observe { after } => {
                pause(after, &mut stop).await;
                let facts = observer::observe(etcd).await;
                if let Ok(facts) = &facts {
                    if claim.as_ref().is_none_or(|claim: &Claim| claim.id() != facts.cluster_id) {
                        match claims.take(facts.cluster_id, &view.request.cluster) {
                            Ok(taken) => claim = Some(taken),
                            Err(reason) => run.forbid(reason),
                        }
                    }
                    members = facts.members.iter().map(|facts| (facts.member.id, facts.member.clone())).collect();
                }
                Event::Observed(facts)
            }
            Action::RecordStep(step) => {
                let written = journal.append(run_id, Entry::Step(step)).await;
                Event::Recorded(written.map_err(|error| error.to_string()))
            }
            Action::Perform(step) => {
                progress.step(&step);
                Event::Performed(perform(etcd, &members, &step).await)
            }
            Action::RecordIntent(decided) => {
                let written = journal.append(run_id, Entry::Intent(decided.clone())).await;
                intent = Some(decided);
                Event::Recorded(written.map_err(|error| error.to_string()))
            }
            Action::Defragment { member, deadline } => match (members.get(&member), &intent) {
                (Some(member), Some(intent)) => {
                    progress.defragmenting(intent);
                    Event::DefragReturned(defragment(etcd, member, intent, deadline, progress).await)
                }
                _ => Event::DefragReturned(Err(DefragError::Answered("not sent: the member is not known".to_owned()))),
            },
            Action::RecordResult(result) => {
                let written = journal.append(run_id, Entry::Result(result.clone())).await;
                progress.member_ended(&result);
                Event::Recorded(written.map_err(|error| error.to_string()))
            }
            Action::Finish(outcome) => return finish(run_id, journal, progress, outcome, begun).await,
        };
        if let Some(reason) = stop.borrow().clone() {
            run.stop(reason);
        }
        action = run.next(begun.elapsed(), event);
        if let Some(plan) = run.plan().filter(|plan| !planned && plan.blocked.is_none()) {
            progress.planned(plan);
            planned = true;
        }
        if let Some(reason) = run.waiting_for() {
            progress.waiting(reason);
        }
    }
}

/// Waits, or until a stop is asked for: the pause between members is not worth waiting for then.
async fn pause(time: Duration, stop: &mut Stop) {
    if time.is_zero() {
        return;
    }
    let stopped = stop.borrow().is_some();
    if stopped {
        // The wait paces the look-outs for a server at work; it must not become a busy loop.
        sleep(time).await;
        return;
    }
    tokio::select! {
        () = sleep(time) => {}
        // Cancel-safe: a watch keeps its value. A closed channel is no stop.
        changed = stop.changed() => if changed.is_err() { sleep(time).await },
    }
}

/// Sends a step once, through the member that it concerns or else any voter.
async fn perform<E: Etcd>(etcd: &E, members: &BTreeMap<MemberId, Member>, step: &Step) -> Result<(), String> {
    let voter = || members.values().find(|member| !member.is_learner).ok_or("no voter is known");
    let member = |id: &MemberId| members.get(id).ok_or("the member is not known");
    let sent = async {
        let answer = match step {
            Step::Compact { revision } => etcd.compact(voter()?, *revision).await,
            Step::MoveLeader { from, to, .. } => etcd.move_leader(member(from)?, member(to)?).await,
            Step::DisarmNoSpace { member_id, .. } => {
                etcd.disarm(voter()?, Alarm { kind: AlarmKind::NoSpace, member: *member_id }).await
            }
        };
        answer.map_err(|unknown| unknown.detail)
    };
    timeout(STEP_LIMIT, sent).await.unwrap_or_else(|_| Err(format!("no answer within {} s", STEP_LIMIT.as_secs())))
}

async fn defragment<E: Etcd>(
    etcd: &E,
    member: &Member,
    intent: &Intent,
    deadline: Duration,
    progress: &dyn Progress,
) -> Result<(), DefragError> {
    let begun = Instant::now();
    let mut reminder = interval_at(begun + REMINDER, REMINDER);
    let answer = timeout_at(begun + deadline, etcd.defragment(member));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            // Not cancelled by the other arm: it is pinned outside the loop.
            answer = &mut answer => return answer.unwrap_or(Err(DefragError::Deadline)),
            _ = reminder.tick() => progress.still_defragmenting(intent, begun.elapsed()),
        }
    }
}

async fn finish<J: Journal>(
    run_id: RunId,
    journal: &J,
    progress: &dyn Progress,
    outcome: Outcome,
    begun: Instant,
) -> Outcome {
    for attempt in 1..=FINISH_TRIES {
        match journal.append(run_id, Entry::Finished(outcome.clone())).await {
            Ok(()) => break,
            Err(error) if attempt == FINISH_TRIES => {
                tracing::error!(%run_id, %error, "cannot write the end of the run; the next start takes it up again");
            }
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
    progress.finished(&outcome, begun.elapsed());
    outcome
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
