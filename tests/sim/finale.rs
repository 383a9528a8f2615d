//! The end of every schedule: everything is repaired, and one more request must do the whole work.

use std::{sync::Arc, time::Duration};

use defragd::{
    app::{
        cluster::{Cluster, stop_channel},
        service::App,
    },
    core::{
        history::{Outcome, RunId},
        lock::SETTLING,
        policy::{LeaderPolicy, Mode},
        reason::Reason,
    },
    ports::service::{AlertDecision, Command},
};
use tokio::time::sleep;

use crate::{
    faults::wants,
    journal::SimJournal,
    lives::{BOUND, approve, boot, broken, key, resume},
    model::{Node, SimEtcd, World},
    sim::Sim,
};

/// After the end of all faults, until all members are level.
const TO_CATCH_UP: Duration = Duration::from_mins(2);
/// The number of its first alert, above those of the schedule.
const FIRST: usize = 1_000;
/// A minute apart: longer than any cooldown and any step of the clock.
const MOST_TRIES: usize = 300;

/// Everything is repaired and every run is over: one more request must now do the whole work.
pub async fn finale(sim: &Arc<Sim>, journal: &SimJournal) {
    if broken(sim) {
        return;
    }
    // Requests that were sent to the servers, by defragd or another client, have to end, metrics pages that are lost for a
    // time have to return, and members that were away have to catch up: how long a run waits for that is not tested here.
    while sim.world().jobs.iter().any(|job| job.state.open()) || sim.world().a_page_is_to_return() {
        sleep(Duration::from_secs(10)).await;
    }
    sleep(TO_CATCH_UP).await;
    let before = journal.views().len();
    let fault_free = sim.world().schedule.fault_free();
    let begun = sim.now();
    let (_stop, stopped) = stop_channel();
    let (cluster, app) = boot(sim, journal, None);
    if app.recover().await.is_err() {
        return sim.world().violate("liveness", "the journal is repaired but defragd does not start".to_owned());
    }
    let finished = async {
        // What is taken without the lock is refused later, should it come too early.
        while cluster.summary().lock.is_some_and(|lock| !lock.held) {
            if sim.now() - begun > BOUND {
                return None;
            }
            sleep(Duration::from_secs(1)).await;
        }
        if cluster.summary().lock.is_some() {
            sleep(SETTLING * 2).await;
        }
        let run = ask(sim, &cluster, &app).await;
        approve(journal, &app).await;
        let begun = sim.now();
        while run.is_some_and(|run| journal.views().iter().any(|view| view.id == run && view.outcome.is_none())) {
            sleep(Duration::from_secs(1)).await;
            if sim.now() - begun > BOUND {
                break;
            }
        }
        run
    };
    let run = tokio::select! {
        biased;
        run = finished => run,
        () = cluster.work(stopped) => None,
        // Where there is no lock, nothing is done.
        () = cluster.keep_lock() => None,
    };
    let view = run.and_then(|run| journal.views().into_iter().find(|view| view.id == run));
    let outcome = view.and_then(|view| view.outcome);
    let mut world = sim.world();
    if world.lock.is_some() && world.locked_out() {
        world.watch.succession.locked_out = true;
        return;
    }
    let Some(outcome) = outcome else {
        return world.violate("liveness", "the last run, on a repaired cluster, has no end".to_owned());
    };
    judge(&mut world, &outcome, fault_free && before > 0);
}

/// Requests a run until it is accepted. After the daily limit only an operator's request is.
async fn ask(
    sim: &Arc<Sim>,
    cluster: &Arc<Cluster<SimEtcd, SimJournal>>,
    app: &Arc<App<SimEtcd, SimJournal>>,
) -> Option<RunId> {
    let limited = sim.world().schedule.policy.max_runs_per_day < u32::MAX;
    for number in FIRST..FIRST + MOST_TRIES {
        // Each time: if the clock was set back, failures lie in the future, and a resume counts only against
        // what ended before it by the clock.
        resume(sim, app).await;
        let taken = if limited {
            cluster.command("p".to_owned(), Command::Run { members: Vec::new() }).await.ok().flatten()
        } else {
            match cluster.request(vec![key(number)]).await {
                Ok(
                    AlertDecision::Accepted { run, .. }
                    | AlertDecision::Duplicate { run: Some(run), reason: Reason::AlreadyRequested, .. },
                ) => Some(run),
                _ => None,
            }
        };
        if taken.is_some() {
            return taken;
        }
        sleep(Duration::from_mins(1)).await;
    }
    None
}

/// Whether a run on a healthy cluster may always end so: an operator must change the cluster or its policy.
pub fn may_end_so(world: &World, outcome: &Outcome) -> bool {
    let policy = &world.schedule.policy;
    let voters = world.current().into_iter().filter(|node| world.nodes[*node].voter()).count();
    let slack = voters >= 3 || policy.allow_without_quorum_slack;
    let (Outcome::Refused { reason } | Outcome::Failed { reason }) = outcome else { return false };
    match reason {
        // An operator must act on a quota that is unknown or too small.
        Reason::QuotaUnknown { .. } | Reason::StillNearQuota { .. } | Reason::NeedsOperator { .. } => true,
        // It is unknown whether a voter that answers is still at its last one: it has no page, or one without the gauge.
        Reason::DefragUnknown { .. } => world.current().into_iter().any(|node| {
            let node = &world.nodes[node];
            node.voter() && node.non_blocking() && !(node.has_page && node.has_gauge)
        }),
        // Learners are upgraded with the others: one with an odd version has to be upgraded or removed.
        Reason::UpgradeInProgress { .. } => world.current().into_iter().any(|node| is_odd(&world.nodes[node])),
        // There is no replica to forward to.
        Reason::NoTransferTarget => voters == 1 && policy.leader == LeaderPolicy::LastAfterTransfer,
        _ => matches!(outcome, Outcome::Refused { .. }) && (has_odd_voter(world) || !slack),
    }
}

fn has_odd_voter(world: &World) -> bool {
    world.current().into_iter().map(|node| &world.nodes[node]).any(|node| node.voter() && is_odd(node))
}

/// Whether it has a version that no run is made with.
fn is_odd(node: &Node) -> bool {
    ["3.5.4", "3.4.3", "banana"].contains(&node.version.as_str())
}

/// What the last run has to come to.
fn judge(world: &mut World, outcome: &Outcome, fault_free: bool) {
    let policy = world.schedule.policy.clone();
    let current = world.current();
    let voters: Vec<_> = current.iter().filter(|node| world.nodes[**node].voter()).copied().collect();
    let (odd, slack) = (has_odd_voter(world), voters.len() >= 3 || policy.allow_without_quorum_slack);
    if policy.mode == Mode::Observe {
        if !matches!(outcome, Outcome::Observed { .. } | Outcome::NothingToDo | Outcome::Refused { .. }) {
            world.violate("I10", format!("mode observe ends as {outcome:?}"));
        }
        return;
    }
    if odd || !slack {
        // A request that waits for a cooldown may be measured as satisfied before any run.
        if !matches!(outcome, Outcome::Refused { .. } | Outcome::NothingToDo) {
            world.violate("I3", format!("a cluster that must be refused ends as {outcome:?}"));
        }
        return;
    }
    if may_end_so(world, outcome) {
        return;
    }
    if matches!(outcome, Outcome::Stopped { reason: Reason::WindowClosed { .. } }) && !policy.windows.0.is_empty() {
        return;
    }
    if !matches!(outcome, Outcome::Succeeded | Outcome::NothingToDo) {
        return world.violate("liveness", format!("a healthy cluster ends as {outcome:?}"));
    }
    if policy.disarm_no_space && world.watch.orders.armed_at_end {
        return world.violate("liveness", format!("the run ends as {outcome:?} and NOSPACE is still armed"));
    }
    let skipped = world.leader.filter(|_| policy.leader == LeaderPolicy::Skip);
    let loose = voters.iter().filter(|node| Some(**node) != skipped).find(|node| {
        let node = &world.nodes[**node];
        // One that was done under the same request before is not done again.
        !world.watch.done_at_end.contains(&node.id())
            && wants(&policy, node.size, node.in_use, node.has_page.then_some(node.quota), false)
    });
    // What a slow compaction frees after the wait for it is for the next run.
    if let Some(loose) = loose.filter(|_| policy.compaction.is_none()) {
        let id = world.nodes[*loose].id();
        return world.violate("liveness", format!("the run ends as {outcome:?} and {id} is still fragmented"));
    }
    // More than one run's members: each Defragment was judged when it was sent.
    if fault_free && world.watch.ended.len() <= voters.len() {
        let led: Vec<_> = world.watch.ended.iter().map(|(_, led)| *led).collect();
        let first = led.iter().position(|led| *led);
        if world.alarms.is_empty() && first.is_some_and(|at| at + 1 < led.len()) {
            world.violate("I2", format!("without any fault the leader was not last: {led:?}"));
        }
    }
}
