//! The checks of policy and operators' actions: the leader, steps other than Defragment, windows, pauses, approvals and
//! limits. As in [`crate::invariants`], from what happened and never from what defragd says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use defragd::core::{
    cluster::{Alarm, AlarmKind, Fact, MemberId, Status},
    history::{AlertKey, Entry, MemberEnd, Outcome, RunId, RunStep, Trigger},
    note::{StandingRequest, SuccessionNote},
    order::Order,
    policy::{Compaction, LeaderPolicy, Mode},
    reason::Reason,
};
use jiff::Timestamp;

use crate::{
    faults::Fault,
    journal::wall_clock,
    model::{World, whole},
    peers,
    seen::Deliveries,
};

/// The longest time from a closing window, or an acknowledged pause, to the last RPC that is still sent: it was decided
/// just before, and the adapter checks the member first.
pub const STILL_SENT: Duration = Duration::from_secs(3);
/// The in-use sizes must have rested for this long after a compaction.
const REST: Duration = Duration::from_secs(5);
/// A difference below this is the clients' work, not the compaction's.
const SAME_WITHIN_BYTES: u64 = 1 << 20;
/// Leadership is transferred this many times in a run.
const MAX_TRANSFERS: u32 = 4;
const MAX_TRANSFERS_WITH_AUTO: u32 = 2;
const DAY: Duration = Duration::from_hours(24);
/// The shortest waits after the first, second, … failure in a row, in minutes; the last one repeats.
const BACK_OFF_MINUTES: [u64; 4] = [1, 5, 15, 60];
/// A worker looks once a minute at what waits; a slow journal delays it.
const ENDED_WITHIN: Duration = Duration::from_mins(2);
/// Between the look that finds an emergency and what is sent because of it there may be a slow network and journal.
const EMERGENCY_SEEN_FOR: Duration = Duration::from_mins(2);

/// What is remembered for these checks.
#[derive(Debug, Default)]
pub struct Orders {
    /// Who paused, since when, and until when.
    paused: BTreeMap<&'static str, (Duration, Option<Duration>)>,
    /// The last step in the journal, and whether it was sent.
    step: Option<(i64, RunStep, bool)>,
    settling: Option<Settling>,
    compacted: Vec<i64>,
    approved: Vec<i64>,
    /// The run that an operator cancelled last, and when.
    cancelled: Option<(i64, Duration)>,
    /// When that was last acknowledged to an operator.
    cancel_answered: Option<Duration>,
    /// The alerts that an operator rejected, and when.
    rejected: Vec<(AlertKey, Duration)>,
    /// Another lock holder's note has an operator's request, which no run here has begun to serve yet.
    pub left_by_operator: bool,
    /// Those of them that another lock holder's note named, and since when.
    inherited: Vec<(AlertKey, Duration)>,
    /// A request was cancelled at some time.
    pub withdrawn: bool,
    /// The alerts that no longer fire, and since when defragd knows.
    pub resolved: BTreeMap<String, Duration>,
    /// Those whose end is being notified: until the answer comes, defragd may know of it or not.
    pub resolving: BTreeSet<String>,
    /// When each alert was last written to the journal as firing, if its end has not been written since.
    pub recorded: BTreeMap<String, Duration>,
    /// The run under way began in an emergency.
    urgent: bool,
    /// Runs that ended after they touched a member.
    touched: Vec<(i64, Duration)>,
    /// Runs that failed in a row.
    failures: u32,
    last_failure: Duration,
    /// The members' data was found to differ, and no operator has resumed since.
    mismatched: bool,
    /// NOSPACE was armed when the last run ended.
    pub armed_at_end: bool,
    /// Leadership transfers of each run: those in the journal, and those that were sent or may have been.
    moves: BTreeMap<i64, (u32, u32)>,
    pub compactions: u64,
    pub transfers: u64,
    pub disarms: u64,
}

impl Orders {
    /// The alerts that were rejected before this time.
    pub fn rejected_before(&self, time: Duration) -> Vec<AlertKey> {
        self.rejected.iter().filter(|(_, at)| *at < time).map(|(key, _)| key.clone()).collect()
    }

    /// Whether this alert still fires, as far as defragd must know.
    pub fn fires(&self, key: &AlertKey) -> bool {
        let is_resolved = self.resolved.get(&key.fingerprint).is_some_and(|at| self.recorded_at(key) <= Some(*at));
        !is_resolved && !self.resolving.contains(&key.fingerprint)
    }

    /// Since when defragd must know that this alert fires no more. Notifications that overtake one another are believed in
    /// the order in which they are recorded.
    pub fn over_since(&self, key: &AlertKey) -> Option<Duration> {
        self.resolved.get(&key.fingerprint).copied().filter(|at| self.recorded_at(key) < Some(*at))
    }

    fn recorded_at(&self, key: &AlertKey) -> Option<Duration> {
        self.recorded.get(&key.fingerprint).copied()
    }

    pub fn is_approved(&self, run: i64) -> bool {
        self.approved.contains(&run)
    }

    /// Whether all of these alerts were rejected within the cooldown.
    fn rejects(&self, alerts: &[AlertKey], now: Duration, cooldown: Duration) -> bool {
        let rejected = |key: &AlertKey| self.rejected.iter().any(|(other, at)| other == key && now < *at + cooldown);
        !alerts.is_empty() && alerts.iter().all(rejected)
    }
}

/// The rest after a compaction, as it was seen.
#[derive(Debug)]
struct Settling {
    since: Duration,
    resting_since: Duration,
    in_use: BTreeMap<MemberId, u64>,
}

impl World {
    /// Windows and limits follow the wall clock, and cannot be exact to the second when it steps.
    pub fn clock_is_steady(&self) -> bool {
        !self
            .schedule
            .faults
            .iter()
            .any(|(_, fault)| matches!(fault, Fault::ClockStep { .. } | Fault::ClockStops { .. }))
    }

    /// A pause was acknowledged to the operator.
    pub fn on_paused(&mut self, by: &'static str, until: Option<Duration>) {
        let now = self.now;
        self.watch.orders.paused.insert(by, (now, until));
        for log in self.watch.runs.values_mut().filter(|log| log.outcome.is_none()) {
            log.stopped = true;
        }
        self.on_pause_acknowledged();
    }

    /// A cancellation was acknowledged to the operator.
    pub fn on_cancelled(&mut self) {
        self.watch.orders.cancel_answered = Some(self.now);
    }

    /// Since when an operator knows that this run is cancelled.
    pub fn cancelled_since(&self, run: i64) -> Option<Duration> {
        let (cancelled, recorded) = self.watch.orders.cancelled?;
        self.watch.orders.cancel_answered.filter(|answered| cancelled == run && *answered >= recorded)
    }

    /// An operator is about to resume.
    pub fn on_resume(&mut self) {
        self.on_resumed_somewhere();
        self.watch.orders.paused.clear();
        self.watch.orders.failures = 0;
        self.watch.orders.mismatched = false;
        self.forgive();
    }

    /// Another holder's commands and runs are in the journal of the replica that acts.
    pub fn on_inherited(&mut self, digest: &SuccessionNote) {
        let now = self.now;
        self.watch.note(now, || format!("inherits {digest:?}"));
        let counted_in = self.watch.inherited.replace(digest.term);
        // A due time in it may be decided here.
        let is_operators = |left: &StandingRequest| {
            left.trigger == Trigger::Manual
                && left.approved_by.is_some()
                && left.alerts.iter().all(|key| key.due().is_none())
        };
        let by_another = peers::number(&digest.holder) != self.watch.acting;
        self.watch.orders.left_by_operator = by_another && digest.request.as_ref().is_some_and(is_operators);
        let last = digest.order.as_ref().map(|record| &record.order);
        if matches!(last, Some(Order::Resume { .. })) {
            self.watch.orders.paused.clear();
        }
        if digest.resumed_at.is_some() {
            self.watch.orders.mismatched = false;
            self.forgive();
        }
        if digest.cleared_at.is_some() {
            self.watch.orders.failures = 0;
        }
        for rejection in &digest.rejections {
            let at = self.when(rejection.at);
            self.watch.orders.rejected.extend(rejection.alerts.iter().map(|key| (key.clone(), at)));
            self.watch.orders.inherited.extend(rejection.alerts.iter().map(|key| (key.clone(), now)));
        }
        for attempt in &digest.attempts {
            self.watch.inherit_attempt(attempt.at, &attempt.result);
        }
        // Its own note says nothing new, and its journal may be newer, unless the journal was lost since; nor does one
        // that was counted in before.
        let forgot = std::mem::take(&mut self.watch.forgot);
        if if by_another { counted_in != Some(digest.term) } else { forgot } {
            // That one may have served the request, or have failed since, after which all members are measured again.
            let work = digest.request.iter().flat_map(|request| &request.work.done).copied().collect();
            let by_alerts = digest.request.as_ref().is_some_and(|request| request.trigger != Trigger::Manual);
            // What alerts have requested does not count for an operator, also if another holder has done it.
            let before = by_alerts && self.watch.waits_for_operator();
            *(if before { &mut self.watch.done_before_operator } else { &mut self.watch.done }) = work;
        }
    }

    /// When it was so by the clock on the wall. Another replica's clock may be ahead of this one.
    fn when(&self, time: Timestamp) -> Duration {
        self.now.saturating_sub(Duration::try_from(wall_clock(self).duration_since(time)).unwrap_or_default())
    }

    /// The configuration says so from the next start, or from now, on.
    pub fn change_mode(&mut self, mode: Mode) {
        let now = self.now;
        self.watch.note(now, || format!("mode {}", mode.label()));
        self.schedule.policy.mode = mode;
        self.mode_changed_at = Some(now);
    }

    /// I4: no pause or other command forbids sending this.
    pub fn check_orders(&mut self, what: &str) {
        self.check_note(what);
        let now = self.now;
        let counts = |(since, until): &&(Duration, Option<Duration>)| {
            now > *since + STILL_SENT && until.is_none_or(|until| now < until)
        };
        if let Some((since, _)) = self.watch.orders.paused.values().copied().find(|pause| counts(&pause))
            && self.clock_is_steady()
        {
            self.violate("I4", format!("{what} although a pause was acknowledged {:?} ago", now - since));
        }
        let under_way = self.watch.runs.iter().rev().find(|(_, log)| log.started && log.outcome.is_none());
        if let Some(since) = under_way.and_then(|(run, _)| self.cancelled_since(*run))
            && now > since + STILL_SENT
        {
            self.violate("I4", format!("{what} although the run was cancelled {:?} ago", now - since));
        }
        if self.is_closed() && self.clock_is_steady() {
            self.violate("I4", format!("{what} although no window has been open for {STILL_SENT:?}"));
        }
    }

    fn is_closed(&self) -> bool {
        let (policy, now) = (&self.schedule.policy, wall_clock(self));
        let closed = !policy.windows.open_at(now) && !policy.windows.open_at(now - STILL_SENT);
        closed && !self.overrides_limits()
    }

    /// The leader is dealt with as the policy says.
    pub fn check_leader(&mut self, seen: &Deliveries, target: MemberId) {
        if seen.leader() != Some(target) {
            return;
        }
        match self.schedule.policy.leader {
            LeaderPolicy::Last => {}
            LeaderPolicy::Auto => {
                // Leadership that does not stay away: after that many transfers the leader is defragmented as it is.
                let given_up = self.transfers_tried() >= MAX_TRANSFERS_WITH_AUTO;
                if self.schedule.policy.transfer_above.is_zero() && self.has_heir(seen, target) && !given_up {
                    self.violate("I2", format!("the leader {target} is defragmented, though a voter could lead"));
                }
            }
            LeaderPolicy::LastAfterTransfer => {
                self.violate("I2", format!("the leader {target} is defragmented without a transfer before"));
            }
            LeaderPolicy::Skip => self.violate("I2", format!("the leader {target} is defragmented, but to be skipped")),
        }
    }

    /// By the run under way.
    fn transfers_tried(&self) -> u32 {
        let run = self.watch.run_under_way();
        run.and_then(|run| self.watch.orders.moves.get(&run)).map_or(0, |(_, tried)| *tried)
    }

    /// A voter that this run has defragmented can take leadership.
    fn has_heir(&self, seen: &Deliveries, leader: MemberId) -> bool {
        let mut members = seen.membership.iter().flat_map(|membership| &membership.members);
        members.any(|member| member.id != leader && !member.is_learner && self.is_done(member.id))
    }

    /// What must hold for every step: it is in the journal, and the cluster was seen to be whole.
    fn check_step(&mut self, sent: &RunStep) -> Deliveries {
        let what = format!("{sent:?}");
        self.check_mutation(&what);
        self.check_orders(&what);
        if self.watch.stop_asked.is_some_and(|asked| self.now > asked + STILL_SENT) {
            self.violate("I4", format!("{what} after a stop was asked for"));
        }
        match &mut self.watch.orders.step {
            Some((_, step, used)) if same(step, sent) && !*used => *used = true,
            other => {
                let other = format!("{other:?}");
                self.violate("I9", format!("{what} is sent, but the last step in the journal is {other}"));
            }
        }
        let seen = self.watch.seen.clone();
        if let Some(danger) = seen.unhealthy().or_else(|| seen.without_page()) {
            self.violate("I3", format!("{what} although {danger}"));
        }
        seen
    }

    /// Once per run, before the first member, and never revisions that the policy keeps.
    pub fn check_compact(&mut self, revision: u64) {
        self.check_step(&RunStep::Compact { revision });
        self.watch.orders.compactions += 1;
        if let Some((run, ..)) = self.watch.orders.step {
            if self.watch.orders.compacted.contains(&run) {
                self.violate("policy", format!("a second compaction in run {run}"));
            }
            self.watch.orders.compacted.push(run);
            if self.watch.has_dealt_with_a_member(run) {
                self.violate("policy", format!("compaction after the first member of run {run}"));
            }
        }
        let newest = whole(self.committed);
        let keep = self.schedule.policy.compaction.map(|compaction| match compaction {
            Compaction::KeepRevisions(keep) => keep,
            Compaction::OlderThan(_) => unreachable!("the simulator does not draw it"),
        });
        if keep.is_none_or(|keep| revision > newest.saturating_sub(keep)) {
            self.violate("policy", format!("compaction up to {revision}, at {newest}, with {keep:?} to keep"));
        }
    }

    /// The wait for the pages begins.
    pub fn compacted(&mut self) {
        let (since, resting_since) = (self.now, self.now);
        self.watch.orders.settling = Some(Settling { since, resting_since, in_use: BTreeMap::new() });
    }

    pub fn watch_settling(&mut self, member: MemberId, answer: &Fact<Status>) {
        let (now, longest) = (self.now, self.schedule.policy.recovery_timeout);
        let Some(settling) = &mut self.watch.orders.settling else { return };
        if now - settling.resting_since >= REST || now - settling.since >= longest {
            self.watch.orders.settling = None;
            return;
        }
        if let Ok(status) = answer {
            let in_use = status.db_size_in_use.0;
            let before = settling.in_use.insert(member, in_use);
            if before.is_some_and(|before| before.abs_diff(in_use) >= SAME_WITHIN_BYTES) {
                settling.resting_since = now;
            }
        }
    }

    /// To a voter that is defragmented, when only the leader is left.
    pub fn check_transfer(&mut self, from: MemberId, to: MemberId) {
        let seen = self.check_step(&RunStep::MoveLeader { from, to, member: String::new() });
        self.watch.orders.transfers += 1;
        let is_auto = self.schedule.policy.leader == LeaderPolicy::Auto;
        let most = if is_auto { MAX_TRANSFERS_WITH_AUTO } else { MAX_TRANSFERS };
        if let Some((run, ..)) = self.watch.orders.step {
            let (_, tried) = self.watch.orders.moves.entry(run).or_default();
            *tried += 1;
            if *tried > most {
                self.violate("policy", format!("leadership is moved once more in run {run}, and does not stay away"));
            }
        }
        let policy = &self.schedule.policy;
        let wanted = match policy.leader {
            LeaderPolicy::Auto => policy.transfer_above < Duration::from_hours(1),
            other => other == LeaderPolicy::LastAfterTransfer,
        };
        if !wanted {
            self.violate("policy", "leadership is moved, and nobody wanted that".to_owned());
        }
        if !seen.is_voter(to) {
            self.violate("I2", format!("leadership goes to {to}, which is no voter"));
        }
        // A voter that waits itself is among these: the heir is tight.
        if let Some(waiting) = self.waiting(&seen, from) {
            self.violate("I2", format!("leadership is moved while {waiting} waits (the heir is {to})"));
        }
    }

    /// Beyond I8: only where the policy says so.
    pub fn check_disarm_step(&mut self, alarm: Alarm) {
        self.check_step(&RunStep::DisarmNoSpace { member_id: alarm.member, member: String::new() });
        self.watch.orders.disarms += 1;
        if !self.schedule.policy.disarm_no_space {
            self.violate("policy", format!("{alarm:?} is disarmed, and nobody wanted that"));
        }
    }

    fn count_transfers(&mut self, run: RunId, entry: &Entry) {
        let (recorded, tried) = self.watch.orders.moves.entry(run.0).or_default();
        match entry {
            Entry::Step(RunStep::MoveLeader { .. }) => *recorded += 1,
            // A new process does not know whether those in the journal were sent.
            Entry::Started { .. } => *tried = *recorded,
            _ => {}
        }
    }

    /// Approvals and limits, and what they held back.
    pub fn check_entry(&mut self, run: RunId, entry: &Entry) {
        self.count_transfers(run, entry);
        let steady = self.clock_is_steady();
        let policy = self.schedule.policy.clone();
        match entry {
            Entry::Approved { requested, .. } => {
                let alerts = self.watch.runs.get(&run.0).map(|log| log.alerts.clone()).unwrap_or_default();
                let known_for = |key: &AlertKey| self.watch.orders.inherited.iter().find(|(other, _)| other == key);
                let is_asked_again = |key: &AlertKey| {
                    known_for(key).is_some_and(|(_, since)| self.now > *since + ENDED_WITHIN)
                        && self.watch.orders.rejects(std::slice::from_ref(key), self.now, policy.cooldown)
                };
                if steady && !alerts.is_empty() && !self.watch.is_manual(run.0) && alerts.iter().all(is_asked_again) {
                    self.violate("rejected", format!("run {run} waited for an approval that another holder was refused"));
                }
                self.watch.orders.approved.push(run.0);
                if *requested {
                    self.watch.orders.cancelled.take_if(|(cancelled, _)| *cancelled == run.0);
                }
            }
            Entry::Cancelled(_) => self.watch.orders.cancelled = Some((run.0, self.now)),
            Entry::Accepted(request)
                // Another replica may not have heard of it when the holder dies.
                if request.trigger == Trigger::Retry
                    && self.lock.is_none()
                    && self.watch.orders.cancelled.is_some_and(|(cancelled, _)| cancelled + 1 == run.0) =>
            {
                self.violate("withdrawn", format!("run {run} is accepted, and the request was cancelled"));
            }
            Entry::Finished(Outcome::Stopped { reason: Reason::Rejected { at, .. } }) => {
                let alerts = self.watch.runs.get(&run.0).map(|log| log.alerts.clone()).unwrap_or_default();
                let at = at.map_or(self.now, |at| self.when(at));
                self.watch.orders.rejected.extend(alerts.into_iter().map(|key| (key, at)));
            }
            Entry::Accepted(request)
                if steady && self.watch.orders.rejects(&request.alerts, self.now, policy.cooldown) =>
            {
                self.violate("rejected", format!("run {run} is accepted for alerts that an operator has just rejected"));
            }
            Entry::Joined { .. } => {
                self.watch.orders.cancelled.take_if(|(cancelled, _)| *cancelled == run.0);
            }
            Entry::Step(step) => self.watch.orders.step = Some((run.0, step.clone(), false)),
            Entry::Started { mode, .. } => {
                // A new process does not know that a compaction has not settled, and measures again.
                self.watch.orders.settling = None;
                let fresh = self.watch.runs.get(&run.0).is_none_or(|log| !log.started);
                if fresh {
                    self.watch.orders.urgent = false;
                    self.watch.orders.urgent = self.overrides_limits();
                }
                let by_operator = self.watch.is_manual(run.0) || self.watch.orders.approved.contains(&run.0);
                if fresh && steady && !by_operator && !self.overrides_limits() {
                    self.check_limits(run);
                    self.check_back_off(run);
                }
                let since = self.now.saturating_sub(self.watch.orders.last_failure);
                let open = self.watch.orders.failures >= policy.breaker_failures
                    && policy.breaker_reset_after.is_none_or(|after| since < after);
                if fresh && self.watch.orders.mismatched {
                    self.violate("verify", format!("run {run} begins after the members were found to differ"));
                }
                if fresh && open && steady {
                    let failures = self.watch.orders.failures;
                    self.violate("limits", format!("run {run} begins after {failures} failures in a row"));
                }
                let slow = |(_, fault): &(Duration, Fault)| matches!(fault, Fault::JournalSlow { .. });
                let written_at_once = !self.schedule.faults.iter().any(slow);
                if fresh && steady && written_at_once && policy.mode != Mode::Observe && self.is_closed() {
                    self.violate("policy", format!("run {run} begins while no window is open"));
                }
                // A member that may be defragmenting is followed to its end.
                let follows = self.watch.runs.get(&run.0).is_some_and(|log| log.open.is_some());
                if *mode == Mode::Approve && !follows && !by_operator {
                    self.violate("approval", format!("run {run} begins, and nobody has approved it"));
                }
            }
            Entry::Intent(intent)
                if self.watch.runs.get(&run.0).and_then(|log| log.mode) == Some(Mode::Approve)
                    && !self.watch.is_manual(run.0)
                    && !self.watch.orders.approved.contains(&run.0) =>
            {
                self.violate("approval", format!("run {run} chooses {}, and nobody has approved it", intent.member));
            }
            Entry::Intent(intent) if self.watch.orders.settling.is_some() => {
                self.violate("I7", format!("{} is chosen before the compaction has settled", intent.member));
            }
            Entry::Result(result) if !matches!(result.end, MemberEnd::NotSent { .. }) => {
                self.watch.orders.touched.push((run.0, self.now));
            }
            Entry::Finished(outcome) => self.on_finished(run, outcome),
            _ => {}
        }
    }

    fn on_finished(&mut self, run: RunId, outcome: &Outcome) {
        self.watch.orders.armed_at_end = self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        let touched = self.watch.orders.touched.iter_mut().filter(|(touched, _)| *touched == run.0);
        for (_, at) in touched {
            *at = self.now;
        }
        match outcome {
            Outcome::Stopped { reason: reason @ Reason::SnapshotOpen { .. } } => {
                self.check_left_armed(run, reason);
                self.watch.orders.touched.retain(|(touched, _)| *touched != run.0);
            }
            // It costs nothing: the next run does the rest.
            Outcome::Stopped {
                reason:
                    Reason::LockLost { .. }
                    | Reason::ShuttingDown
                    | Reason::Paused { .. }
                    | Reason::WindowClosed { .. }
                    | Reason::AwaitingApproval { .. },
            } => {
                self.watch.orders.touched.retain(|(touched, _)| *touched != run.0);
            }
            Outcome::Failed { reason } => {
                self.check_left_armed(run, reason);
                self.watch.orders.failures += 1;
                self.watch.orders.last_failure = self.now;
            }
            Outcome::Succeeded => self.watch.orders.failures = 0,
            Outcome::Mismatched { .. } => self.watch.orders.mismatched = true,
            _ => {}
        }
    }

    /// NOSPACE is armed, or a file is near its quota.
    pub fn is_emergency(&self) -> bool {
        let near_quota = |node: usize| self.nodes[node].size * 10 >= self.nodes[node].quota * 9;
        self.alarms.iter().any(|alarm| alarm.kind == AlarmKind::NoSpace) || self.current().into_iter().any(near_quota)
    }

    /// Windows, cooldown and daily limit do not count now, for a run that began in an emergency or may have seen one.
    pub fn overrides_limits(&self) -> bool {
        let seen = |at: Duration| self.now.saturating_sub(at) < EMERGENCY_SEEN_FOR;
        let emergency = self.is_emergency() || self.emergency_at.is_some_and(seen);
        self.schedule.policy.emergency && (emergency || self.watch.orders.urgent)
    }

    /// A run that failed leaves NOSPACE armed only if a file is too large for it to be disarmed, or trouble is in the way.
    fn check_left_armed(&mut self, run: RunId, reason: &Reason) {
        let policy = &self.schedule.policy;
        let in_the_way = matches!(
            reason,
            Reason::DisarmFailed { .. }
                | Reason::NoSpaceAgain
                | Reason::MembershipChanged { .. }
                | Reason::ClusterChanged { .. }
        );
        let stops = self.watch.stop_asked.is_some() || self.lock.is_some() || !self.watch.orders.paused.is_empty();
        let stops = stops || self.watch.runs.get(&run.0).is_some_and(|log| log.stopped);
        let stops = stops || self.watch.orders.cancelled.is_some_and(|(cancelled, _)| cancelled == run.0);
        let stops = stops || !policy.windows.0.is_empty() || policy.mode != Mode::Enforce;
        let tried = matches!(&self.watch.orders.step, Some((of, RunStep::DisarmNoSpace { .. }, _)) if *of == run.0);
        if in_the_way || stops || tried || !policy.disarm_no_space {
            return;
        }
        let seen = &self.watch.seen;
        let armed = seen.alarms.iter().flatten().any(|alarm| alarm.kind == AlarmKind::NoSpace);
        let begun_with = self.watch.runs.get(&run.0).and_then(|log| log.identity.as_ref());
        let now = seen.membership.as_ref().map(crate::invariants::identity);
        if begun_with.is_some() && begun_with != now.as_ref() {
            // A cluster is left alone while its membership changes.
            return;
        }
        let members = seen.membership.iter().flat_map(|membership| &membership.members);
        let small = members.into_iter().all(|member| {
            let Some(Ok(status)) = seen.status.get(&member.id) else { return false };
            // It stays the same while a member runs.
            let kept = || self.watch.quotas.get(&member.id).copied().filter(|_| !seen.requested.contains(&member.id));
            let reported = seen.gauges.get(&member.id).and_then(|gauges| gauges.as_ref().ok()?.quota).or_else(kept);
            status.quota.or(reported).is_some_and(|quota| status.db_size.0 * 10 < quota.0 * 9)
        });
        if armed && small && seen.unhealthy().is_none() {
            self.violate("L1", format!("run {run} fails and leaves NOSPACE armed, and every file is small: {reason}"));
        }
    }

    fn check_limits(&mut self, run: RunId) {
        let mut recent: BTreeMap<i64, Duration> = BTreeMap::new();
        for (run, at) in &self.watch.orders.touched {
            // Where the journal did not take a run's end, its time counts from its acceptance: not judged here.
            let ended = self.watch.runs.get(run).is_some_and(|log| log.outcome.is_some());
            if ended && self.now.saturating_sub(*at) < DAY {
                recent.insert(*run, *at);
            }
        }
        let policy = self.schedule.policy.clone();
        if recent.len() as u64 >= u64::from(policy.max_runs_per_day) {
            self.violate("limits", format!("run {run} is taken after {} in a day", recent.len()));
        }
        let has_failed = |run: &&i64| {
            let outcome = self.watch.runs.get(*run).and_then(|log| log.outcome.as_ref());
            matches!(outcome, Some(Outcome::Failed { .. } | Outcome::Interrupted { .. }))
        };
        let served = recent.iter().filter(|(run, _)| !has_failed(run)).map(|(_, at)| *at);
        if let Some(since) = served.max().map(|last| self.now - last)
            && since < policy.cooldown
        {
            self.violate("limits", format!("run {run} is taken {since:?} after the last"));
        }
    }

    /// Nothing that requests a run shortens the wait after a failure.
    fn check_back_off(&mut self, run: RunId) {
        let failures = self.watch.orders.failures as usize;
        let Some(before) = failures.checked_sub(1) else { return };
        let wait = Duration::from_mins(BACK_OFF_MINUTES[before.min(BACK_OFF_MINUTES.len() - 1)]);
        let since = self.now.saturating_sub(self.watch.orders.last_failure);
        // A run's end gets its time before it is on the disk.
        if since + STILL_SENT < wait {
            self.violate("limits", format!("run {run} begins {since:?} after failure {failures} in a row"));
        }
    }
}

/// The name in it is for people.
fn same(a: &RunStep, b: &RunStep) -> bool {
    match (a, b) {
        (RunStep::Compact { revision: a }, RunStep::Compact { revision: b }) => a == b,
        (RunStep::MoveLeader { from, to, .. }, RunStep::MoveLeader { from: f, to: t, .. }) => (from, to) == (f, t),
        (RunStep::DisarmNoSpace { member_id: a, .. }, RunStep::DisarmNoSpace { member_id: b, .. }) => a == b,
        _ => false,
    }
}
