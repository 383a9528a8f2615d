//! The RPCs of a run: each is sent once and limited in time, and the member is observed meanwhile.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tokio::time::{Instant, interval_at, sleep, timeout, timeout_at};

use crate::{
    core::{
        cluster::{Alarm, AlarmKind, Member, MemberId},
        history::RunStep,
        run::{DefragError, StepError},
    },
    ports::etcd::{Etcd, Permit},
};

/// How often observers hear that a Defragment is still in progress.
const REMINDER: Duration = Duration::from_secs(5);
/// How long a step may take. etcd's own limit for a proposal is 7 s.
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// How often a member that may answer while it defragments is queried for its state.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// An answer within this time does not count as unavailability.
const UNNOTICED: Duration = Duration::from_millis(100);

/// Sends a step once, through the member that it concerns or else any voter.
pub(super) async fn send<E: Etcd>(
    etcd: &E,
    members: &BTreeMap<MemberId, Member>,
    step: &RunStep,
) -> Result<(), StepError> {
    let voter = || members.values().find(|member| !member.is_learner).ok_or(StepError::NoVoter);
    let member = |id: &MemberId| members.get(id).ok_or(StepError::UnknownMember);
    let sent = async {
        let answer = match step {
            RunStep::Compact { revision } => etcd.compact(voter()?, *revision).await,
            RunStep::MoveLeader { from, to, .. } => etcd.move_leader(member(from)?, member(to)?).await,
            RunStep::DisarmNoSpace { member_id, .. } => {
                etcd.disarm(voter()?, Alarm { kind: AlarmKind::NoSpace, member: *member_id }).await
            }
        };
        answer.map_err(|unknown| StepError::Answered(unknown.detail))
    };
    timeout(STEP_LIMIT, sent).await.unwrap_or(Err(StepError::Deadline(STEP_LIMIT)))
}

/// Waits for the answer, and measures how long the member did not answer `Status`.
pub(super) async fn while_watched<E: Etcd, T>(
    etcd: &E,
    member: &Member,
    sent: impl Future<Output = T>,
) -> (T, Duration) {
    let noticed = |since: Instant| Some(since.elapsed()).filter(|time| *time > UNNOTICED).unwrap_or_default();
    let mut unavailable = Duration::ZERO;
    tokio::pin!(sent);
    loop {
        let asked = Instant::now();
        let failed = tokio::select! {
            biased;
            // Not cancelled by the other arm: it is pinned outside the loop.
            answer = &mut sent => return (answer, unavailable + noticed(asked)),
            status = etcd.status(member) => status.is_err(),
        };
        if !failed {
            unavailable += noticed(asked);
        }
        tokio::select! {
            biased;
            answer = &mut sent => return (answer, unavailable),
            () = sleep(STATUS_INTERVAL) => unavailable += if failed { asked.elapsed() } else { Duration::ZERO },
        }
    }
}

pub(super) async fn defragment<E: Etcd>(
    etcd: &E,
    member: &Member,
    permit: &dyn Permit,
    deadline: Duration,
    still_out: impl Fn(Duration),
) -> Result<(), DefragError> {
    let begun = Instant::now();
    let mut reminder = interval_at(begun + REMINDER, REMINDER);
    let answer = timeout_at(begun + deadline, etcd.defragment(member, permit));
    tokio::pin!(answer);
    loop {
        tokio::select! {
            biased;
            // Not cancelled by the other arm: it is pinned outside the loop.
            answer = &mut answer => return answer.unwrap_or(Err(DefragError::Deadline)),
            _ = reminder.tick() => still_out(begun.elapsed()),
        }
    }
}
