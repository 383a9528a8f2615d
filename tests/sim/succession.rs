//! The lock's invariants over all replicas, according to its server; and how long takeovers take.
//!
//! *Not* promised: a process that is stopped (SIGSTOP, a live migration) after it had the permit and before the RPC left
//! sends it when it wakes, even if another replica holds the lock by then: etcd has no fencing token for Defragment.
//! It is at most one RPC for each such stop. A run that observes the members after that RPC has reached its member sees it
//! and starts no other; only a run that observed before can. That is counted, not judged: [`World::excused`].

use std::time::Duration;

use defragd::core::{
    cluster::MemberId,
    history::{AlertKey, Entry, Outcome, RunId},
    lock::Term,
    note::SuccessionNote,
    order::Order,
    reason::Reason,
};

use crate::{invariants::RunLog, journal::wall_clock, model::World, peers, policy::STILL_SENT};

/// An answer may be written down this long after it was given: the process that heard it may have been stopped.
const HEARD_BEFORE: Duration = Duration::from_mins(5);

/// From what happens to the note that says so, with a slow journal.
const NOTED_WITHIN: Duration = Duration::from_secs(30);

/// How a holder came to hold no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    Killed,
    /// Stopped for longer than its lease lasts.
    Stopped,
    /// An orderly end.
    Released,
}

#[derive(Debug)]
struct Lost {
    at: Duration,
    how: How,
    term: Term,
    /// Who holds it since, and since when.
    gained: Option<(usize, Duration)>,
}

/// From one holder to the next.
#[derive(Debug, Default)]
pub struct Succession {
    highest: Term,
    lost: Option<Lost>,
    /// Times from the loss until another knew that it holds the lock.
    pub gains: Vec<(How, Duration)>,
    /// And until it began a run that had waited for it.
    pub acts: Vec<(How, Duration)>,
    /// Sent by a process that was stopped between the permit and the sending.
    pub strays: u64,
    /// Of these, when the lock was not its any more.
    pub strays_without_lock: u64,
    /// Sent under a valid lock, on facts that were old because of a stop between the last look and the sending.
    pub stale: u64,
    /// Two Defragments at once because of one of those.
    pub overlaps: u64,
    /// Under which term the note beside the lock was left.
    left_under: Option<Term>,
    /// What the note beside the lock says: paused since when, until when by the clock on the wall.
    note: Option<(Duration, Option<jiff::Timestamp>)>,
    /// When an operator last resumed.
    resumed_at: Option<jiff::Timestamp>,
    /// Pauses that were acknowledged, and those that got into a note.
    pauses: u64,
    pub pauses_left: u64,
    /// Replicas whose journal was lost.
    forgot: Vec<(usize, Duration)>,
    /// How often an operator had to resume again.
    pub resumed_again: u64,
    /// NOSPACE is armed in the cluster with the lock, and there is no candidate for it.
    pub locked_out: bool,
}

impl Succession {
    pub fn nobody_waits(&mut self) {
        self.lost = None;
    }
}

impl World {
    /// A Defragment leaves under the term that its run began with, while the lock's server gives the lock to no one
    /// else; and terms never go back.
    pub fn check_lock(&mut self, job: usize, target: MemberId) {
        if self.lock.is_none() {
            return;
        }
        let (replica, stray) = (self.watch.acting, self.jobs[job].stray);
        let term = self.watch.run_under_way().and_then(|run| self.watch.runs.get(&run)?.term);
        let holder = self.lock_holder();
        let holds = term.is_some() && holder == term.map(|term| (replica, term));
        let succession = &mut self.watch.succession;
        if stray {
            succession.strays += 1;
            succession.strays_without_lock += u64::from(!holds);
            return;
        }
        let back = term.filter(|term| *term < succession.highest);
        succession.highest = succession.highest.max(term.unwrap_or_default());
        let highest = succession.highest;
        if !holds {
            self.violate("lock", format!("Defragment to {target} under {term:?}, and the lock is with {holder:?}"));
        }
        if let Some(back) = back {
            self.violate("lock", format!("Defragment to {target} under term {back} after one under {highest}"));
        }
    }

    /// Whether two Defragments at once are what a stop in the worst place may lead to: one of them is the stray, and
    /// the other's run observed before that could be seen.
    pub fn excused(&mut self, job: usize, other: usize) -> bool {
        let unseen = |world: &Self, stray: usize| {
            world.jobs[stray].arrived_at.is_none_or(|arrived| world.watch.seen.began <= arrived)
        };
        let excused = self.jobs[job].stray || (self.jobs[other].stray && unseen(self, other));
        self.watch.succession.overlaps += u64::from(excused);
        excused
    }

    /// Those who believe at one moment that they hold the lock.
    pub fn check_beliefs(&mut self, believers: &[(usize, Term)]) {
        if believers.len() > 1 {
            self.violate("lock", format!("several replicas believe to hold it: {believers:?}"));
        }
        if let Some((replica, term)) = believers.first()
            && let Some((holder, other)) = self.lock_holder()
            && (holder, other) != (*replica, *term)
        {
            let what = format!("replica {replica} believes to hold it with term {term}, but {holder} does: {other}");
            self.violate("lock", what);
        }
    }

    /// A replica that may hold the lock ends, or is stopped.
    pub fn on_holder_lost(&mut self, replica: usize, how: How) {
        let now = self.now;
        if let Some((holder, term)) = self.lock_holder()
            && holder == replica
        {
            self.watch.succession.lost = Some(Lost { at: now, how, term, gained: None });
        }
    }

    pub fn on_replica_stopped(&mut self, replica: usize) {
        if self.lock.is_some() {
            self.on_holder_lost(replica, How::Stopped);
        }
    }

    /// The acting replica learns that it holds the lock.
    pub fn on_lock_held(&mut self, term: Term) {
        let (now, replica) = (self.now, self.watch.acting);
        let succession = &mut self.watch.succession;
        let Some(lost) = &mut succession.lost else { return };
        if term == lost.term {
            // A stop that was over soon enough.
            if lost.how == How::Stopped {
                succession.lost = None;
            }
        } else if lost.gained.is_none() {
            lost.gained = Some((replica, now));
            succession.gains.push((lost.how, now - lost.at));
        }
    }

    /// A note is at the lock's server from now on.
    pub fn on_note(&mut self, note: &str) {
        let digest = SuccessionNote::read(note).expect("a replica reads what it writes");
        let (now, resumed_at) = (self.now, self.watch.succession.resumed_at);
        let rejected = self.watch.orders.rejected_before(now.saturating_sub(NOTED_WITHIN));
        if let Some(key) =
            rejected.into_iter().find(|key| !digest.rejections.iter().any(|one| one.alerts.contains(key)))
        {
            self.violate("lock", format!("the note does not say that {} was rejected", key.fingerprint));
        }
        let paused = digest.order.filter(|record| resumed_at.is_none_or(|resumed| record.at > resumed));
        let until = paused.and_then(|record| match record.order {
            Order::Pause { until, .. } => Some(until),
            Order::Resume { .. } => None,
        });
        self.watch.note(now, || format!("lock: a note of {} under {}, paused {until:?}", digest.holder, digest.term));
        let succession = &mut self.watch.succession;
        succession.left_under = Some(digest.term);
        match until {
            None => succession.note = None,
            Some(until) if succession.note.is_none() => {
                succession.pauses_left += 1;
                succession.note = Some((now, until));
            }
            Some(until) => succession.note = succession.note.map(|(since, _)| (since, until)),
        }
    }

    /// A resume is about to be sent, or is in the journal.
    pub fn on_resumed_somewhere(&mut self) {
        let at = wall_clock(self);
        let succession = &mut self.watch.succession;
        succession.resumed_at = succession.resumed_at.max(Some(at));
        succession.note = None;
    }

    pub fn on_pause_acknowledged(&mut self) {
        self.watch.succession.pauses += 1;
    }

    pub fn pauses(&self) -> [u64; 3] {
        let succession = &self.watch.succession;
        [succession.pauses, succession.pauses_left, succession.resumed_again]
    }

    /// I4: a pause that is in the note beside the lock holds for every later holder.
    pub fn check_note(&mut self, what: &str) {
        if let Some((since, until)) = self.watch.succession.note
            && self.now > since + STILL_SENT
            && until.is_none_or(|until| wall_clock(self) < until)
            && self.clock_is_steady()
        {
            self.violate("I4", format!("{what} although a pause has been in the lock's note since {since:?}"));
        }
    }

    pub fn on_journal_lost(&mut self) {
        let replica = self.watch.acting;
        let at = self.now;
        self.watch.succession.forgot.push((replica, at));
        self.watch.journal_lost();
    }

    /// I6: what was forwarded stands until the other replica's run has ended or the alert is resolved; an operator's
    /// request, until that run is accepted.
    pub fn check_forwarded(&mut self, run: RunId, entry: &Entry) {
        let Entry::Finished(Outcome::Stopped { reason: Reason::Forwarded { holder, run: theirs } }) = entry else {
            return;
        };
        let holder = peers::number(holder);
        // A lost journal cannot be checked, and an answer from before the loss may be written down later.
        let is_recent = |at: Duration| self.now < at + HEARD_BEFORE;
        if self.watch.succession.forgot.iter().any(|(replica, at)| *replica == holder && is_recent(*at)) {
            return;
        }
        let by_operator = self.watch.runs.get(&run.0).is_some_and(|log| log.manual);
        // The run may be under way for other alerts.
        let own = self.watch.runs.get(&run.0);
        let resolved = own.is_some_and(RunLog::is_withdrawn)
            || self.watch.all().iter().any(|own| !own.orders.resolved.is_empty() || own.orders.withdrawn);
        // The first answer says that the holder has already served this due time, by that run or before it: by one for it or
        // for a later one, by one for an earlier one that was over later, or by one for alerts that came later.
        let is_served = |key: &AlertKey| {
            let serves = |(number, log): &(&i64, &RunLog)| match &log.outcome {
                Some(Outcome::Succeeded | Outcome::Mismatched { .. } | Outcome::NothingToDo) => true,
                Some(_) => **number == theirs.0,
                None => **number == theirs.0 && log.withdrawn,
            };
            let there = self.watch.all()[holder].runs.range(..=theirs.0).filter(serves);
            let serves_until = |(_, log): (&i64, &RunLog)| match log.alerts.iter().filter_map(AlertKey::due).max() {
                Some(due) => log.over_by_clock.max(Some(due)),
                None => log.started.then_some(log.accepted_by_clock),
            };
            key.due().is_some_and(|due| there.filter_map(serves_until).max() >= Some(due))
        };
        let unoffered = self.watch.runs.get(&run.0).and_then(|log| {
            let is_left = |key: &&AlertKey| !log.resolved.contains(key) && !is_served(key);
            let unoffered = log.alerts.iter().filter(is_left).find(|key| !log.offered.contains(key));
            unoffered.filter(|_| !log.manual).cloned()
        });
        if let Some(unoffered) = unoffered.filter(|_| !resolved) {
            let what = format!("run {run} ends as forwarded, and {} was not offered", unoffered.fingerprint);
            self.violate("I6", what);
        }
        let there = self.watch.all()[holder].runs.get(&theirs.0);
        // It is over as soon as the cancellation is recorded: the operator has not been answered yet.
        if there.is_none_or(|log| log.outcome.is_none() && !log.withdrawn && !by_operator && !resolved) {
            let outcome = there.map(|log| log.outcome.clone());
            let what = format!("run {run} ends as forwarded to run {theirs} of replica {holder}, which is {outcome:?}");
            self.violate("I6", what);
        }
    }

    /// A run begins under a new term only with what the last holder left counted in.
    fn check_inherited(&mut self, run: RunId, entry: &Entry) {
        let Entry::Started { term: Some(term), .. } = entry else { return };
        let left_under = self.watch.succession.left_under.filter(|left| left < term);
        if left_under.is_some_and(|left| self.watch.inherited < Some(left)) {
            let counted_in = self.watch.inherited;
            let what = format!("run {run} begins under term {term} with {counted_in:?} counted in, not {left_under:?}");
            self.violate("lock", what);
        }
    }

    pub fn on_begun(&mut self, run: RunId, entry: &Entry) {
        if !matches!(entry, Entry::Started { .. }) {
            return;
        }
        self.check_inherited(run, entry);
        let accepted_at = self.watch.runs.get(&run.0).map_or(Duration::MAX, |log| log.accepted_at);
        let (now, replica) = (self.now, self.watch.acting);
        let succession = &mut self.watch.succession;
        if let Some(lost) = succession.lost.take_if(|lost| lost.gained.is_some_and(|(by, _)| by == replica))
            && lost.gained.is_some_and(|(_, at)| accepted_at < at)
        {
            succession.acts.push((lost.how, now - lost.at));
        }
    }
}
