//! The invariants I1–I10 of the design, checked at every event from what happened at the servers and in the
//! journal, and from what the network really delivered to defragd: never from what defragd says.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    time::Duration,
};

use bytesize::ByteSize;
use defragd::{
    core::{
        cluster::{Alarm, AlarmKind, ClusterId, Fact, Gauges, Member, MemberId, Status},
        history::{AlertKey, Entry, MemberEnd, MemberResult, Outcome, RunId, Sizes, Trigger},
        lock::Term,
        policy::{LeaderPolicy, Mode, OpenSnapshotPolicy, VerifyPolicy},
        reason::Reason,
        verify::DataHash,
    },
    ports::etcd::Membership,
};

use jiff::Timestamp;

use crate::{
    faults::least_gain,
    gates::GateRecord,
    journal::wall_clock,
    model::{JobState, World},
    policy::{Orders, STILL_SENT},
    seen::Deliveries,
    succession::Succession,
};

/// Between the last answer of the observation that a Defragment rests on and the Defragment there is only the
/// intent's way to the disk.
const FRESH: Duration = Duration::from_secs(15);
/// A file above this share of its quota would raise the alarm again.
const DISARM_MARGIN: f64 = 0.9;
/// Of the clients' leases.
const LEASE_TTL: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub what: String,
    pub at: Duration,
}

/// A run according to the journal.
#[derive(Clone, Debug, Default)]
pub struct RunLog {
    pub started: bool,
    /// Since when it is in the journal.
    pub accepted_at: Duration,
    /// The same by its replica's clock.
    pub accepted_by_clock: Timestamp,
    /// When it ended or was cancelled, by that clock.
    pub over_by_clock: Option<Timestamp>,
    /// In which life of its replica it was started last.
    begun_in: Option<u64>,
    /// Of the lock, under which it was started last.
    pub term: Option<Term>,
    /// The configuration's mode when it was started last, which it keeps.
    pub mode: Option<Mode>,
    /// Those behind it, and those of them that were offered to another replica.
    pub alerts: Vec<AlertKey>,
    pub offered: Vec<AlertKey>,
    /// Those that no longer fire.
    pub resolved: Vec<AlertKey>,
    /// Requested by an operator: only danger holds it back.
    pub manual: bool,
    pub outcome: Option<Outcome>,
    /// A pause or a cancellation has stopped it: no resume and no alert that joins takes that back, only a new process,
    /// which reads in the journal what is in force.
    pub stopped: bool,
    dealt_with: Vec<MemberId>,
    /// Whether Defragment was sent in it, or may have been.
    touched: bool,
    pub open: Option<MemberId>,
    /// The open intent has had its RPC.
    sent: bool,
    failed: bool,
    /// An operator withdrew its request, and with it what was to be compared.
    pub withdrawn: bool,
    journal_failed: bool,
    gates: GateRecord,
    /// A Defragment of this run has had no good answer (yet).
    unanswered: bool,
    /// The members' data was compared since the last of them was defragmented.
    verified: bool,
    /// The cluster and its members, as they were seen at the first Defragment.
    pub identity: Option<(ClusterId, Vec<MemberId>)>,
}

impl RunLog {
    /// The process of this life has begun or continued it, and it has not ended.
    fn is_under_way(&self, life: u64) -> bool {
        self.begun_in == Some(life) && self.outcome.is_none()
    }

    /// With this outcome, its request is continued, and what was done under it counts: it was broken off, or has changed
    /// nothing.
    fn leaves_work(&self, outcome: &Outcome) -> bool {
        // An intent without a result may have been sent.
        let touched = self.touched || self.open.is_some();
        let undone = matches!(outcome, Outcome::Refused { .. } | Outcome::Failed { .. });
        outcome.is_broken_off() || undone && !touched
    }

    /// None of its alerts fires any more: a later alert is another request.
    pub fn is_withdrawn(&self) -> bool {
        !self.manual && !self.alerts.is_empty() && self.alerts.iter().all(|key| self.resolved.contains(key))
    }
}

/// The cluster and its members.
pub fn identity(membership: &Membership) -> (ClusterId, Vec<MemberId>) {
    let mut members: Vec<_> = membership.members.iter().map(|member| member.id).collect();
    members.sort();
    (membership.cluster_id, members)
}

/// All that is remembered for the checks. What is of one replica is [`Own`], and reads as if it were here: of the
/// replica that acts.
#[derive(Debug)]
pub struct Watch {
    pub violation: Option<Violation>,
    own: Vec<Own>,
    /// The replica through whose port the world is observed.
    pub acting: usize,
    /// Defragmentations that defragd caused, as `(member, it led at the start)`, in the order of their ends.
    pub ended: Vec<(MemberId, bool)>,
    /// Times that a client's lease of five seconds ran out because its keepalives, which only the leader answers,
    /// met a leader that was being defragmented by us.
    pub leases_lost: u64,
    /// Such a leader, under writes, and since when.
    busy_leader: Option<(usize, Duration)>,
    pub mutations: u64,
    /// Of everything that happened, in order: two runs of one seed must agree.
    pub digest: u64,
    pub trace: Option<Vec<String>>,
    /// Of the lock, from one replica to the next.
    pub succession: Succession,
}

/// What is remembered of one replica.
#[derive(Debug, Default)]
pub struct Own {
    pub seen: Deliveries,
    pub runs: BTreeMap<i64, RunLog>,
    /// Since when no new member may be started in this life.
    pub stop_asked: Option<Duration>,
    pub sends: u64,
    pub calls: u64,
    /// Under which term the last note was left that its journal has.
    pub inherited: Option<Term>,
    pub orders: Orders,
    /// Members that the run under way saw sending a snapshot, and whose page has not shown its end since.
    sending: Vec<MemberId>,
    /// What the pages said that the run under way has read.
    pub quotas: BTreeMap<MemberId, ByteSize>,
    /// The last attempt on each member, and whether an operator has resumed since.
    attempts: BTreeMap<MemberId, LastAttempt>,
    intending: Option<i64>,
    /// The hashes that were seen since the last start of a run or end of a member, each with the number of its reading.
    hashes: Vec<(u64, MemberId, DataHash)>,
    /// How often the members were asked for.
    looks: u64,
    /// What was done under the request that stands: the members that are defragmented, and whether their data is to be
    /// compared yet.
    pub done: Vec<MemberId>,
    pub uncompared: bool,
    /// Those that were done when the last run ended.
    pub done_at_end: Vec<MemberId>,
    /// What was in `done` when an operator's run was accepted.
    pub done_before_operator: Vec<MemberId>,
    /// The journal was lost, and no note has been counted in since.
    pub forgot: bool,
}

/// The last attempt on a member, as far as a replica knows.
#[derive(Clone, Debug)]
struct LastAttempt {
    at: Timestamp,
    result: MemberResult,
    /// An operator has resumed since.
    forgiven: bool,
}

impl Deref for Watch {
    type Target = Own;

    fn deref(&self) -> &Own {
        &self.own[self.acting]
    }
}

impl DerefMut for Watch {
    fn deref_mut(&mut self) -> &mut Own {
        &mut self.own[self.acting]
    }
}

impl Watch {
    pub fn new(traced: bool) -> Self {
        Self {
            violation: None,
            own: vec![Own::default()],
            acting: 0,
            ended: Vec::new(),
            leases_lost: 0,
            busy_leader: None,
            mutations: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            trace: traced.then(Vec::new),
            succession: Succession::default(),
        }
    }

    pub fn count_replicas(&mut self, count: usize) {
        self.own.resize_with(count, Own::default);
    }

    pub fn all(&self) -> &[Own] {
        &self.own
    }

    /// The journal of the replica that acts is gone, and with it what follows from what was in it.
    pub fn journal_lost(&mut self) {
        let before = std::mem::take(&mut **self);
        (self.sends, self.calls, self.forgot) = (before.sends, before.calls, true);
        let orders = &mut self.orders;
        (orders.compactions, orders.transfers, orders.disarms) =
            (before.orders.compactions, before.orders.transfers, before.orders.disarms);
    }

    /// What another replica did last to a member. Whether it may be tried again is left open, for its clock is another.
    pub fn inherit_attempt(&mut self, at: Timestamp, result: &MemberResult) {
        let id = result.intent.member_id;
        if self.attempts.get(&id).is_none_or(|own| own.at < at) {
            self.attempts.insert(id, LastAttempt { at, result: result.clone(), forgiven: true });
        }
    }

    pub fn is_manual(&self, run: i64) -> bool {
        self.runs.get(&run).is_some_and(|run| run.manual)
    }

    /// Whether the run before this one was an operator's that was broken off.
    fn operator_continues(&self, run: i64) -> bool {
        let before = self.runs.range(..run).next_back();
        before.is_some_and(|(_, log)| log.manual && log.outcome.as_ref().is_some_and(Outcome::is_broken_off))
    }

    /// The open request is an operator's, and no attempt at an earlier one.
    pub fn waits_for_operator(&self) -> bool {
        let open = self.runs.iter().next_back().filter(|(_, log)| log.outcome.is_none());
        open.is_some_and(|(run, log)| log.manual && !self.operator_continues(*run))
    }

    /// The run whose intent is the last in the journal.
    pub fn run_under_way(&self) -> Option<i64> {
        self.intending
    }

    /// Whether the run has an end for any member.
    pub fn has_dealt_with_a_member(&self, run: i64) -> bool {
        self.runs.get(&run).is_some_and(|run| !run.dealt_with.is_empty())
    }

    pub fn note(&mut self, at: Duration, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let who = if self.own.len() > 1 { format!("[{}] ", self.acting) } else { String::new() };
            trace.push(format!("{:>9.3}  {who}{}", at.as_secs_f64(), line()));
        }
    }

    pub fn mix(&mut self, at: Duration, values: &[u64]) {
        let at = u64::try_from(at.as_micros()).unwrap();
        for value in std::iter::once(&at).chain(values) {
            self.digest = (self.digest ^ value).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17);
        }
    }
}

impl World {
    pub fn violate(&mut self, invariant: &'static str, what: String) {
        let at = self.now;
        self.watch.note(at, || format!("VIOLATION {invariant}: {what}"));
        self.watch.violation.get_or_insert(Violation { invariant, what, at });
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        self.watch.note(now, line);
    }

    // ---- what defragd could know ----

    pub fn forget_observation(&mut self) {
        self.watch.seen = Deliveries { began: self.now, at: self.now, ..Deliveries::default() };
        self.watch.looks += 1;
    }

    pub fn observe_members(&mut self, membership: &Membership) {
        self.watch.seen.at = self.now;
        self.watch.seen.membership = Some(membership.clone());
    }

    /// A Defragment is decided on. From now on its member is only watched.
    pub fn rely_on_observation(&mut self) {
        self.watch.seen.is_relied_on = true;
    }

    pub fn observe_status(&mut self, member: MemberId, answer: &Fact<Status>) {
        if !self.watch.seen.is_relied_on {
            self.watch.seen.at = self.now;
            self.watch.seen.status.insert(member, answer.clone());
        }
        self.watch_settling(member, answer);
    }

    pub fn observe_read(&mut self, member: MemberId, good: bool) {
        self.watch.seen.at = self.now;
        self.watch.seen.read.insert(member, good);
    }

    pub fn request_page(&mut self, member: MemberId) {
        self.watch.seen.requested.push(member);
    }

    pub fn observe_gauges(&mut self, member: MemberId, answer: &Fact<Gauges>) {
        self.watch.seen.at = self.now;
        self.watch.seen.gauges.insert(member, answer.clone());
        if let Ok(Gauges { open_snapshots: Some(open), .. }) = answer {
            self.watch.sending.retain(|id| *id != member);
            self.watch.sending.extend((*open > 0).then_some(member));
        }
        if let Ok(Gauges { quota: Some(quota), .. }) = answer {
            self.watch.quotas.insert(member, *quota);
        }
    }

    pub fn observe_alarms(&mut self, answer: &Fact<Vec<Alarm>>) {
        self.watch.seen.at = self.now;
        if let Ok(alarms) = answer {
            self.watch.seen.alarms = Some(alarms.clone());
        }
    }

    pub fn observe_hash(&mut self, member: MemberId, answer: &Fact<DataHash>) {
        if let Ok(hash) = answer {
            let look = self.watch.looks;
            self.watch.hashes.push((look, member, *hash));
        }
    }

    /// The pairs of members that every reading in which they can be compared shows to differ, and that are at least two.
    fn differing(&self) -> Option<(MemberId, MemberId)> {
        let mut pairs: BTreeMap<(MemberId, MemberId), Vec<bool>> = BTreeMap::new();
        for (at, (look, one, hash)) in self.watch.hashes.iter().enumerate() {
            let same = self.watch.hashes[..at].iter().filter(|(of, ..)| of == look);
            for (_, other, other_hash) in same.filter(|(.., other)| other.compact_revision == hash.compact_revision) {
                pairs.entry((*other.min(one), *other.max(one))).or_default().push(other_hash.hash != hash.hash);
            }
        }
        pairs
            .into_iter()
            .find(|(_, differ)| differ.len() > 1 && differ.iter().all(|differ| *differ))
            .map(|(pair, _)| pair)
    }

    /// A run does not succeed although hashes were seen to differ, nor without a comparison if the policy requires one;
    /// and one reading alone is no mismatch.
    fn check_verified(&mut self, run: RunId, outcome: &Outcome) {
        if self.schedule.policy.verify == VerifyPolicy::None {
            return;
        }
        let differing = self.differing();
        let log = self.watch.runs.get(&run.0);
        let compared = log.is_some_and(|log| log.verified);
        let observes = log.is_none_or(|log| log.mode.is_none_or(|mode| mode == Mode::Observe));
        // After a crash the verdict is in the journal, and the readings were another process's.
        let read = !self.watch.hashes.is_empty();
        match (outcome, differing) {
            (Outcome::Succeeded, Some((one, other))) => {
                self.violate("verify", format!("run {run} succeeds, and {one} and {other} were seen to differ"));
            }
            (Outcome::Succeeded, None) if !compared => {
                self.violate("verify", format!("run {run} succeeds without a comparison"));
            }
            (Outcome::NothingToDo, _) if self.watch.uncompared && !observes => {
                self.violate("verify", format!("run {run} ends, and what its request defragmented is not compared"));
            }
            (Outcome::Mismatched { .. }, None) if read => {
                self.violate("verify", format!("run {run} ends as mismatched, and no two readings show a difference"));
            }
            _ => {}
        }
    }

    /// What an operator requested is continued as such: whatever joins it between two attempts, and whatever another
    /// lock holder had been requested besides.
    fn check_operators(&mut self, run: RunId, entry: &Entry) {
        match entry {
            Entry::Started { .. } if self.watch.orders.left_by_operator && !self.watch.is_manual(run.0) => {
                self.violate("operator", format!("run {run} begins, and the last holder's operator's request is lost"));
            }
            Entry::Started { .. } | Entry::Cancelled(_) => self.watch.orders.left_by_operator = false,
            Entry::Finished(_) => self.watch.orders.left_by_operator &= !self.watch.is_manual(run.0),
            _ => {}
        }
        if let Entry::Accepted(request) = entry
            && request.trigger != Trigger::Manual
            && self.watch.operator_continues(run.0)
            && let Some((before, log)) = self.watch.runs.range(..run.0).next_back()
            && !log.withdrawn
            && self.watch.orders.is_approved(*before)
        {
            let what = format!("run {run} is accepted, and the operator's request of run {before} is lost");
            self.violate("operator", what);
        }
    }

    /// What a run leaves for the next attempt at its request.
    fn on_request(&mut self, run: RunId, entry: &Entry) {
        let hash = self.schedule.policy.verify == VerifyPolicy::Hash;
        if is_by_operator(entry) {
            self.watch.runs.entry(run.0).or_default().withdrawn = false;
        }
        match entry {
            Entry::Result(result) if !matches!(result.end, MemberEnd::NotSent { .. }) => {
                self.watch.uncompared = hash;
                self.watch.runs.entry(run.0).or_default().touched = true;
                if matches!(result.end, MemberEnd::Defragmented { .. }) {
                    self.watch.hashes.clear();
                    self.watch.done.push(result.intent.member_id);
                }
            }
            Entry::Verified(_) => self.watch.uncompared = false,
            Entry::Started { .. } => {
                // What it has done before a crash is its own work, whatever another holder has left meanwhile.
                let log = self.watch.runs.get(&run.0).filter(|log| !log.failed);
                let own = log.map(|log| log.dealt_with.clone()).unwrap_or_default();
                self.watch.done.extend(own);
            }
            _ if is_by_operator(entry) && !self.watch.operator_continues(run.0) => {
                self.watch.done_before_operator = std::mem::take(&mut self.watch.done);
            }
            Entry::Intent(intent) => {
                let id = intent.member_id;
                let own = self.watch.runs.get(&run.0).is_some_and(|log| log.dealt_with.contains(&id));
                if self.watch.done.contains(&id) && !own && !self.overrides_limits() {
                    self.violate("again", format!("run {run} chooses {id}, which its request has defragmented before"));
                }
            }
            Entry::Cancelled(_) | Entry::Joined { .. } => {
                let withdrawn = matches!(entry, Entry::Cancelled(_));
                self.watch.uncompared &= !withdrawn;
                let log = self.watch.runs.entry(run.0).or_default();
                let was_withdrawn = std::mem::replace(&mut log.withdrawn, withdrawn);
                let stands = log.outcome.as_ref().is_some_and(|outcome| log.leaves_work(outcome));
                // Between two attempts, that ends the request.
                if withdrawn && log.outcome.is_some() {
                    self.watch.done.clear();
                }
                // An alert that joins a run before its worker has noticed its end is no part of the cancellation, and
                // continues the request.
                if was_withdrawn && !withdrawn && stands {
                    self.watch.done = self.watch.done_at_end.clone();
                }
            }
            Entry::Resolved { alerts } => {
                let log = self.watch.runs.entry(run.0).or_default();
                log.resolved.extend(alerts.iter().cloned());
                // Between two attempts, that ends the request.
                if log.outcome.is_some() && log.is_withdrawn() {
                    self.watch.done.clear();
                }
            }
            Entry::Finished(outcome) => {
                let manual = self.watch.is_manual(run.0);
                self.watch.done_at_end = self.watch.done.clone();
                let undone = matches!(outcome, Outcome::Refused { .. } | Outcome::Failed { .. });
                let leaves_work = self.watch.runs.get(&run.0).is_some_and(|log| log.leaves_work(outcome));
                // By its alerts' ends or by an operator: nothing continues it, however it ended.
                let withdrawn = self.watch.runs.get(&run.0).is_some_and(|log| log.is_withdrawn() || log.withdrawn);
                let joined = self.watch.runs.get(&run.0).is_some_and(|log| !log.alerts.is_empty());
                if !outcome.is_broken_off() && (!leaves_work || manual && !joined) || withdrawn {
                    self.watch.done.clear();
                }
                // An operator's run that did nothing, and that no alert has joined, says nothing of a request that stands.
                if manual && undone && !joined {
                    let before = std::mem::take(&mut self.watch.done_before_operator);
                    self.watch.done.extend(before);
                }
                let stands =
                    matches!(outcome, Outcome::Failed { .. } | Outcome::Refused { .. } | Outcome::Interrupted { .. });
                let withdrawn = self.watch.runs.get(&run.0).is_some_and(|log| log.withdrawn);
                if withdrawn || !outcome.is_broken_off() && (!stands || manual) {
                    self.watch.uncompared = false;
                }
            }
            _ => {}
        }
    }

    // ---- at the servers ----

    /// After every event: I1.
    pub fn check_now(&mut self) {
        let busy: Vec<_> = self
            .jobs
            .iter()
            .filter(|job| job.ours && !job.stray && job.state == JobState::Running)
            .map(|job| (self.nodes[job.node].cluster, self.nodes[job.node].id()))
            .collect();
        let twice =
            busy.iter().enumerate().find(|(index, (cluster, _))| busy[..*index].iter().any(|(c, _)| c == cluster));
        if twice.is_some() {
            self.violate("I1", format!("several members defragment at once because of defragd: {busy:?}"));
        }
    }

    pub fn on_defrag_start(&mut self, job: usize) {
        let (now, node) = (self.now, self.jobs[job].node);
        let (id, ours, leads) = (self.nodes[node].id(), self.jobs[job].ours, self.jobs[job].leader_at_start);
        self.watch.mix(now, &[1, id.0, u64::from(ours), u64::from(leads)]);
        self.watch.note(now, || format!("server {id}: defragmentation begins (ours {ours}, leads {leads})"));
        if ours && leads && self.load > 0.0 {
            self.watch.busy_leader = Some((job, now));
        }
    }

    pub fn on_defrag_end(&mut self, job: usize) {
        let (now, node) = (self.now, self.jobs[job].node);
        let (id, ours, state) = (self.nodes[node].id(), self.jobs[job].ours, self.jobs[job].state);
        if ours {
            self.watch.ended.push((id, self.jobs[job].leader_at_start));
        }
        if let Some((_, since)) = self.watch.busy_leader.take_if(|(busy, _)| *busy == job)
            && now.saturating_sub(since) > LEASE_TTL
        {
            self.lose_leases(id);
        }
        self.watch.mix(now, &[2, id.0, u64::from(ours), state as u64]);
        self.watch.note(now, || format!("server {id}: defragmentation ends: {state:?} (ours {ours})"));
    }

    /// With a policy that transfers leadership first, this must not happen. Where leadership moves by
    /// itself right then, it cannot be guaranteed.
    fn lose_leases(&mut self, leader: MemberId) {
        self.watch.leases_lost += 1;
        let policy = &self.schedule.policy;
        let voters = self.current().into_iter().filter(|node| self.nodes[*node].voter()).count();
        // A single voter has nobody to transfer leadership to.
        let in_place = policy.leader == LeaderPolicy::Last
            || policy.leader == LeaderPolicy::Auto && (!policy.transfer_above.is_zero() || voters == 1);
        if !in_place && self.schedule.fault_free() {
            self.violate("policy", format!("clients' leases ran out while the leader {leader} was defragmented"));
        }
    }

    /// When defragd sends Defragment: everything that must hold right then.
    pub fn check_send(&mut self, job: usize) {
        let target = self.nodes[self.jobs[job].node].id();
        let now = self.now;
        self.watch.sends += 1;
        self.watch.mix(now, &[3, target.0]);
        self.watch.note(now, || format!("defragd sends Defragment to {target}"));
        self.check_mutation("Defragment");
        self.check_intent(target);
        let stray = self.jobs[job].stray;
        if !stray && !self.jobs[job].held_up {
            // A replica that was stopped after its last observation knows of nothing since.
            self.check_orders("Defragment");
        }
        self.check_lock(job, target);
        // I5: by the truth at the servers, over all lives of defragd.
        let running = (0..self.jobs.len()).find(|other| {
            *other != job
                && self.jobs[*other].ours
                && self.jobs[*other].node == self.jobs[job].node
                && self.jobs[*other].state.open()
        });
        // What a process sends that was stopped while it had the permit cannot be guaranteed, see `succession`.
        if let Some(other) = running
            && !self.excused(job, other)
        {
            let state = self.jobs[other].state;
            self.violate("I5", format!("{target} still has a Defragment of ours ({state:?}) and gets another"));
        }
        let elsewhere = (0..self.jobs.len()).find(|index| {
            let other = &self.jobs[*index];
            other.ours
                && other.state.open()
                && self.nodes[other.node].id() != target
                && self.nodes[other.node].cluster == self.cluster
                && !self.nodes[other.node].removed
                && !self.excused(job, *index)
        });
        if let Some(other) = elsewhere {
            let other = &self.jobs[other];
            let what = format!(
                "{} has a Defragment of ours ({:?}) when {target} gets one",
                self.nodes[other.node].id(),
                other.state
            );
            self.violate("I1", what);
        }
        let seen = self.watch.seen.clone();
        if let Some(what) = self.seen_danger(&seen) {
            self.violate("I3", format!("Defragment to {target} although {what}"));
        }
        self.check_snapshot(&seen, target);
        self.check_need(&seen, target, stray);
        self.check_leader(&seen, target);
        if !stray {
            self.check_truth(target);
        }
    }

    /// I4 and I9: the journal allows this very RPC.
    fn check_intent(&mut self, target: MemberId) {
        // The adapter's last look comes between the decision and the RPC.
        if self.watch.stop_asked.is_some_and(|asked| self.now > asked + STILL_SENT) {
            self.violate("I4", format!("Defragment to {target} after a stop was asked for"));
        }
        let run = self.watch.intending.and_then(|run| Some((run, self.watch.runs.get_mut(&run)?)));
        let Some((id, run)) = run else {
            return self.violate("I9", format!("Defragment to {target} without an intent in the journal"));
        };
        let (open, sent) = (run.open, std::mem::replace(&mut run.sent, true));
        let unanswered = std::mem::replace(&mut run.unanswered, true);
        let gates = run.gates.clone();
        let (failed, journal_failed, over) =
            (run.failed || unanswered, run.journal_failed, run.outcome.is_some() || !run.started);
        if open != Some(target) || sent {
            self.violate(
                "I9",
                format!("Defragment to {target} in run {id}, but its open intent is {open:?} (used: {sent})"),
            );
        }
        if failed || journal_failed || over {
            let what = format!(
                "a member failed or never answered {failed}, journal failed {journal_failed}, not begun or over {over}"
            );
            self.violate("I4", format!("Defragment to {target} in run {id}: {what}"));
        }
        self.check_gates(&gates, &format!("Defragment to {target} in run {id}"));
    }

    /// I3: what a careful operator would see in the last observation.
    fn seen_danger(&self, seen: &Deliveries) -> Option<String> {
        let voters: Vec<_> = seen.membership.as_ref()?.members.iter().filter(|member| !member.is_learner).collect();
        if !self.schedule.policy.allow_without_quorum_slack && voters.len() < 3 {
            return Some(format!("{} voters have no slack", voters.len()));
        }
        if let Some(unhealthy) = seen.unhealthy().or_else(|| seen.without_page()) {
            return Some(unhealthy);
        }
        let status = |voter: &&Member| seen.status.get(&voter.id).and_then(|status| status.as_ref().ok());
        if let Some(status) = voters.iter().filter_map(status).find(|status| dangerous(&status.version)) {
            return Some(format!("a voter runs {}", status.version));
        }
        seen.upgrade()
    }

    /// A member that was seen sending a snapshot would serve no client until it is sent.
    fn check_snapshot(&mut self, seen: &Deliveries, target: MemberId) {
        let open = seen.gauges.get(&target).and_then(|gauges| gauges.as_ref().ok()?.open_snapshots);
        let is_open = open.is_some_and(|open| open > 0) || self.watch.sending.contains(&target);
        if is_open && self.schedule.policy.on_open_snapshot == OpenSnapshotPolicy::Wait {
            self.violate("policy", format!("Defragment to {target}, which sends a snapshot"));
        }
    }

    /// I2 and I7: the member needs it, as measured just now, and no follower comes before the leader.
    fn check_need(&mut self, seen: &Deliveries, target: MemberId, stray: bool) {
        let Some(membership) = &seen.membership else {
            return self.violate("I3", format!("Defragment to {target} without an observation"));
        };
        self.check_identity(membership);
        let age = self.now.saturating_sub(seen.at);
        if stray {
            // It was stopped after its permit, before it could send.
            self.watch.succession.stale += u64::from(age > FRESH);
        } else if age > FRESH {
            self.violate("I7", format!("Defragment to {target} on an observation of {} s ago", age.as_secs()));
        }
        if !self.needs(seen, target) {
            return self.violate("I7", format!("{target} does not need a defragmentation"));
        }
        let manual = self.watch.intending.and_then(|run| self.watch.runs.get(&run)).is_some_and(|run| run.manual);
        if !manual && self.held_back(seen, target, true) {
            self.violate("policy", format!("{target} is tried again after {:?}", self.watch.attempts.get(&target)));
        }
        if seen.leader() == Some(target)
            && let Some(waiting) = self.waiting(seen, target)
        {
            self.violate("I2", format!("the leader {target} is defragmented while {waiting} waits"));
        }
        if membership.members.iter().any(|member| member.id == target && member.is_learner) {
            self.violate("I3", format!("{target} is a learner"));
        }
    }

    fn needs(&self, seen: &Deliveries, id: MemberId) -> bool {
        self.least_gain(seen, id).is_some()
    }

    /// The bytes that the need of this member asks for at least.
    fn least_gain(&self, seen: &Deliveries, id: MemberId) -> Option<u64> {
        let no_space = seen.alarms.iter().flatten().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        let status = seen.status.get(&id)?.as_ref().ok()?;
        let reported = seen.gauges.get(&id).and_then(|gauges| gauges.as_ref().ok()?.quota);
        let quota = status.quota.or(reported).map(|quota: ByteSize| quota.0);
        least_gain(&self.schedule.policy, status.db_size.0, status.db_size_in_use.0, quota, no_space)
    }

    /// Whether automation leaves the member alone until an operator resumes or more can be gained. `resumed`: whether a
    /// resume counts, which may be in flight at the moment that it is given.
    fn held_back(&self, seen: &Deliveries, id: MemberId, resumed: bool) -> bool {
        let Some(LastAttempt { result: last, forgiven, .. }) = self.watch.attempts.get(&id) else { return false };
        let Some(Ok(status)) = seen.status.get(&id) else { return false };
        if resumed && *forgiven {
            return false;
        }
        match &last.end {
            MemberEnd::Failed { reason: Reason::DiskFull { .. }, .. } => true,
            // The versions in the schedules that a full disk kills.
            MemberEnd::Failed { reason: Reason::ConnectionLost { .. }, .. } => {
                ["3.4.23", "3.5.16"].contains(&status.version.as_str())
            }
            MemberEnd::Defragmented { after, .. } => {
                let (before, size) = (last.intent.before, |sizes: Sizes| sizes.db_size.0);
                let free = |sizes: Sizes| sizes.db_size.0.saturating_sub(sizes.db_size_in_use.0);
                let reclaimed = size(before).saturating_sub(size(*after));
                // Under NOSPACE a full file without free pages is tried, too: its size in use may be from before.
                let gained = reclaimed > 0 && reclaimed.saturating_mul(10) >= free(before);
                // A member that was not seen to need it is left alone anyway.
                let more = self.least_gain(seen, id).unwrap_or(u64::MAX);
                !gained && status.reclaimable().0 < free(*after).saturating_add(more)
            }
            _ => false,
        }
    }

    /// An operator sends a resume.
    pub fn forgive(&mut self) {
        self.watch.attempts.values_mut().for_each(|last| last.forgiven = true);
    }

    /// A voter other than this one that still needs a defragmentation in the run under way.
    pub fn waiting(&self, seen: &Deliveries, but: MemberId) -> Option<MemberId> {
        let started = self.watch.runs.iter().rev().find(|(_, run)| run.started && run.outcome.is_none());
        let mut dealt_with = started.map(|(_, run)| run.dealt_with.clone()).unwrap_or_default();
        // A run of the same request was broken off after them.
        dealt_with.extend(&self.watch.done);
        let members = seen.membership.iter().flat_map(|membership| &membership.members);
        let mut waiting = members.filter(|member| {
            member.id != but
                && !member.is_learner
                && self.needs(seen, member.id)
                && !self.held_back(seen, member.id, false)
                && !dealt_with.contains(&member.id)
        });
        waiting.next().map(|member| member.id)
    }

    /// By the run under way.
    pub fn is_done(&self, id: MemberId) -> bool {
        let started = self.watch.runs.values().rev().find(|run| run.started && run.outcome.is_none());
        started.is_some_and(|run| run.dealt_with.contains(&id))
    }

    /// By the run under way or an earlier attempt at its request, or left to an operator.
    pub fn is_dealt_with(&self, id: MemberId) -> bool {
        self.is_done(id) || self.watch.done.contains(&id) || self.held_back(&self.watch.seen, id, false)
    }

    /// Within one run the cluster and its members stay the same.
    fn check_identity(&mut self, membership: &Membership) {
        let now = identity(membership);
        let Some(run) = self.watch.intending.and_then(|run| self.watch.runs.get_mut(&run)) else { return };
        let before = run.identity.get_or_insert_with(|| now.clone()).clone();
        if before != now {
            self.violate("I3", format!("the cluster changed within the run from {before:?} to {now:?}"));
        }
    }

    /// Defragment was answered with success, and the answer arrived.
    pub fn answered(&mut self) {
        if let Some(run) = self.watch.intending.and_then(|run| self.watch.runs.get_mut(&run)) {
            run.unanswered = false;
        }
    }

    /// I10.
    pub fn check_mutation(&mut self, what: &str) {
        self.watch.mutations += 1;
        let now = self.now;
        if what != "Defragment" {
            self.watch.note(now, || format!("defragd sends {what}"));
        }
        let open = |log: &&RunLog| log.started && log.outcome.is_none();
        let mode = self.watch.runs.values().rev().find(open).and_then(|log| log.mode);
        if mode.unwrap_or(self.schedule.policy.mode) == Mode::Observe {
            self.violate("I10", format!("{what} in mode observe"));
        }
    }

    /// I8.
    pub fn check_disarm(&mut self, alarm: Alarm) {
        self.check_disarm_step(alarm);
        let seen = self.watch.seen.clone();
        let corrupt = seen.alarms.iter().flatten().any(|alarm| alarm.kind == AlarmKind::Corrupt);
        if corrupt || alarm.kind == AlarmKind::Corrupt || seen.alarms.is_none() {
            self.violate(
                "I8",
                format!("{alarm:?} is disarmed: CORRUPT armed {corrupt}, alarms known {}", seen.alarms.is_some()),
            );
        }
        for member in seen.membership.iter().flat_map(|membership| &membership.members) {
            let size = seen.status.get(&member.id).and_then(|status| Some(status.as_ref().ok()?.db_size.0));
            let quota = self.find(member.id).map_or(0, |node| self.nodes[node].quota);
            #[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^52")]
            let above = size.is_none_or(|size| size as f64 > quota as f64 * DISARM_MARGIN);
            if above && !member.is_learner {
                self.violate("I8", format!("{alarm:?} is disarmed while {} is above the margin or unknown", member.id));
            }
        }
    }

    // ---- in the journal ----

    pub fn on_journal_failure(&mut self, run: Option<RunId>) {
        let now = self.now;
        self.watch.mix(now, &[4]);
        self.watch.note(now, || format!("journal: a write for run {run:?} fails"));
        if let Some(log) = run.and_then(|run| self.watch.runs.get_mut(&run.0)) {
            log.journal_failed = true;
        }
    }

    /// Whether the process that runs now drives it.
    pub fn is_under_way(&self, run: RunId) -> bool {
        let life = self.host().journal.life;
        self.watch.runs.get(&run.0).is_some_and(|log| log.is_under_way(life))
    }

    /// I4: what is known of a stop keeps a run from choosing a member, not only from sending.
    pub fn on_journal_wanted(&mut self, run: Option<RunId>, entry: &Entry) {
        let configured = self.schedule.policy.mode;
        if let Entry::Started { mode, .. } = entry
            && *mode != configured
            && self.mode_changed_at.is_none_or(|at| self.now > at + STILL_SENT)
        {
            let what = format!("a start in another mode than the configuration's: {}", brief(entry));
            self.violate("policy", what);
        }
        if let (Entry::Intent(intent), Some(asked)) = (entry, self.watch.stop_asked)
            && self.now > asked
        {
            self.violate(
                "I4",
                format!("{} is chosen {:?} after a stop was asked for", intent.member, self.now - asked),
            );
        }
        if let (Entry::Intent(intent), Some(run)) = (entry, run)
            && let Some(since) = self.cancelled_since(run.0)
            && self.now > since
        {
            let what = format!("run {run} chooses {} although it is cancelled since {since:?}", intent.member);
            self.violate("I4", what);
        }
    }

    pub fn on_journal_entry(&mut self, run: RunId, entry: &Entry) {
        let now = self.now;
        self.watch.note(now, || format!("journal {run}: {}", brief(entry)));
        self.watch.mix(now, &[5, run.0.unsigned_abs(), kind(entry)]);
        self.check_entry(run, entry);
        self.on_begun(run, entry);
        self.check_forwarded(run, entry);
        self.check_operators(run, entry);
        let (wall, life) = (wall_clock(self), self.host().journal.life);
        let log = self.watch.runs.entry(run.0).or_default();
        let mut wrong = None;
        // An alert may join, and a resume may be on its way to the disk, between a run's end and its worker's noticing;
        // a refused run's retry serves it then.
        let from_outside = matches!(
            entry,
            Entry::Joined { .. } | Entry::Resolved { .. } | Entry::Approved { .. } | Entry::Cancelled(_)
        );
        if log.outcome.is_some() && !from_outside {
            wrong = Some(("I6", "an entry after the outcome"));
        }
        match entry {
            Entry::Accepted(request) => {
                log.manual = is_by_operator(entry);
                log.alerts.clone_from(&request.alerts);
                (log.accepted_at, log.accepted_by_clock) = (now, wall);
            }
            Entry::Gate(result) => log.gates.on_result(result),
            Entry::Joined { alerts } => {
                log.resolved.retain(|key| !alerts.contains(key));
                log.alerts.extend(alerts.iter().cloned());
            }
            Entry::Forwarded(handed) => log.offered.clone_from(&handed.alerts),
            Entry::Cancelled(_) => (log.stopped, log.over_by_clock) = (true, Some(wall)),
            Entry::Approved { .. } => log.manual |= is_by_operator(entry),
            Entry::Step(_) | Entry::Resolved { .. } => {}
            Entry::Verified(_) => log.verified = true,
            // More than once after a crash: the run is resumed, everything is measured again, and the
            // journal of the new process has not failed yet.
            Entry::Started { term, mode, .. } => {
                log.mode = Some(*mode);
                (log.started, log.journal_failed, log.identity, log.stopped) = (true, false, None, false);
                (log.term, log.begun_in) = (*term, Some(life));
                log.gates.on_start();
                self.watch.hashes.clear();
                self.watch.sending.clear();
                self.watch.quotas.clear();
            }
            Entry::Intent(intent) => {
                if log.open.is_some() || !log.started {
                    wrong = Some(("I9", "an intent while another is open, or before the start"));
                }
                if log.failed || log.journal_failed {
                    wrong = Some(("I4", "an intent after a failure"));
                }
                if log.mode == Some(Mode::Observe) {
                    wrong = Some(("I10", "an intent in mode observe"));
                }
                (log.open, log.sent) = (Some(intent.member_id), false);
                self.watch.intending = Some(run.0);
            }
            Entry::Result(result) => {
                if log.open != Some(result.intent.member_id) {
                    wrong = Some(("I9", "a result without its intent"));
                }
                log.open = None;
                if matches!(result.end, MemberEnd::Defragmented { .. }) {
                    log.gates.on_member();
                    log.verified = false;
                }
                match result.end {
                    // Not sent, or found idle after a restart: it counts as if it had not been begun.
                    MemberEnd::NotSent { .. } | MemberEnd::Unconfirmed { .. } => log.unanswered = false,
                    MemberEnd::Defragmented { .. } | MemberEnd::Failed { .. } => {
                        log.dealt_with.push(result.intent.member_id);
                    }
                }
                log.failed |= matches!(result.end, MemberEnd::Failed { .. });
                // One that a crash left open says nothing.
                if matches!(result.end, MemberEnd::Defragmented { .. } | MemberEnd::Failed { .. }) {
                    let last = LastAttempt { at: wall, result: result.clone(), forgiven: false };
                    self.watch.attempts.insert(result.intent.member_id, last);
                }
            }
            Entry::Finished(outcome) => {
                (log.outcome, log.over_by_clock) = (Some(outcome.clone()), Some(wall));
                let upgrading = matches!(outcome.reason(), Some(Reason::UpgradeInProgress { .. }));
                if upgrading && self.watch.seen.upgrade().is_none() {
                    wrong = Some(("L2", "it waits for an upgrade that is over, or without space"));
                }
                self.check_verified(run, outcome);
            }
            Entry::Repeats { .. } => unreachable!("the simulator's journal leaves nothing out"),
        }
        if let Some((invariant, what)) = wrong {
            self.violate(invariant, format!("run {run}: {what}: {}", brief(entry)));
        }
        self.check_followed(run, entry);
        self.on_request(run, entry);
    }

    /// I5: nothing is reported as ended that has not ended.
    fn check_followed(&mut self, run: RunId, entry: &Entry) {
        let said_done = match entry {
            Entry::Result(result) if matches!(result.end, MemberEnd::Defragmented { .. }) => {
                Some(result.intent.member_id)
            }
            _ => None,
        };
        // A member that was last seen to be at work must be followed to the end of it.
        let seen_busy = |id| {
            let gauges = self.watch.seen.gauges.get(&id);
            matches!(gauges, Some(Ok(Gauges { defrag_in_flight: Some(true), .. })))
        };
        if let Entry::Result(result) = entry
            && matches!(
                &result.end,
                MemberEnd::Failed { reason: Reason::DeadlineExceeded { .. } | Reason::ConnectionLost { .. }, .. }
            )
            && seen_busy(result.intent.member_id)
        {
            self.violate("I5", format!("run {run} leaves {} while it is seen to defragment", result.intent.member_id));
        }
        // Another holder may have sent its own meanwhile, to a process that was stopped after its own had ended.
        if let Some(id) = said_done
            && self.jobs.iter().any(|job| {
                job.ours
                    && job.replica == self.watch.acting
                    && !job.stray
                    && job.state.open()
                    && self.nodes[job.node].id() == id
            })
        {
            self.violate("I5", format!("run {run} says {id} is defragmented while it still is being"));
        }
    }
}

/// An operator requests a run: a new one, or the one that waits.
fn is_by_operator(entry: &Entry) -> bool {
    match entry {
        Entry::Accepted(request) => request.trigger == Trigger::Manual,
        Entry::Approved { requested, .. } => *requested,
        _ => false,
    }
}

fn dangerous(version: &str) -> bool {
    // The table of etcd-facts.md, written again here.
    let numbers: Vec<u32> = version.split(['.', '-']).map_while(|part| part.parse().ok()).collect();
    match numbers.as_slice() {
        [3, 4, patch, ..] => *patch < 4,
        [3, 5, patch, ..] => *patch <= 5,
        [major, minor, _, ..] => (*major, *minor) < (3, 4),
        _ => true,
    }
}

/// A number for each, for the digest.
fn kind(entry: &Entry) -> u64 {
    match entry {
        Entry::Accepted(_) => 0,
        Entry::Started { .. } => 1,
        Entry::Intent(_) => 2,
        Entry::Result(_) => 3,
        Entry::Finished(_) => 4,
        Entry::Step(_) => 5,
        Entry::Joined { .. } => 6,
        Entry::Resolved { .. } => 7,
        Entry::Approved { .. } => 8,
        Entry::Gate(_) => 9,
        Entry::Forwarded(_) => 10,
        Entry::Repeats { .. } => 11,
        Entry::Cancelled(_) => 12,
        Entry::Verified(_) => 13,
    }
}

fn brief(entry: &Entry) -> String {
    match entry {
        Entry::Accepted(request) => format!("accepted {:?}", request.alerts.first().map(|key| &key.fingerprint)),
        Entry::Started { mode, .. } => format!("started ({})", mode.label()),
        Entry::Intent(intent) => format!("intent {} (leader {})", intent.member_id, intent.is_leader),
        Entry::Result(result) => format!("result {} {}: {:?}", result.intent.member_id, result.label(), result.end),
        Entry::Step(step) => format!("step {step:?}"),
        Entry::Gate(result) => format!("gate {} {}: {}", result.gate, result.label(), result.detail),
        Entry::Verified(verification) => format!("verified: {:?}", verification.verdict),
        Entry::Joined { alerts } => format!("joined by {} alerts", alerts.len()),
        Entry::Resolved { alerts } => format!("{} alerts resolved", alerts.len()),
        Entry::Approved { by, requested: true, .. } => format!("requested by {by}"),
        Entry::Approved { by, requested: false, .. } => format!("approved by {by}"),
        Entry::Cancelled(cancellation) => format!("cancelled by {}", cancellation.by),
        Entry::Forwarded(to) => format!("forwarded to {} as run {}", to.holder.name, to.run),
        Entry::Finished(outcome) => format!("finished {}: {outcome:?}", outcome.label()),
        Entry::Repeats { times, .. } => format!("stands for {times} before it"),
    }
}
