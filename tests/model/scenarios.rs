//! The scenarios, and what each records.

use std::time::Duration;

use defragd::{
    core::cluster::{AlarmKind, Member},
    ports::etcd::{Etcd, Permitted, Visit},
};
use tokio::time::sleep;

use crate::lab::{
    Lab, PATIENCE, Roles, Transcript, asked, comes, end, kind, roles, status, until, until_in_flight, voters,
};

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Nothing is wrong and nothing is under way.
    Healthy,
    /// A follower defragments: what answers, there and elsewhere, and a second Defragment.
    Follower,
    /// The leader does.
    Leader,
    /// Leadership is moved.
    Transfer,
    /// RPCs to a learner.
    Learner,
    /// The history is compacted.
    Compaction,
    /// The quota is used up.
    NoSpace,
    /// CORRUPT is armed.
    Corrupt,
    /// Members die, up to the loss of the quorum.
    Killed,
    /// A member dies while it defragments.
    KilledAtWork,
    /// A member freezes.
    Frozen,
}

impl Scenario {
    pub const ALL: [Self; 11] = [
        Self::Healthy,
        Self::Follower,
        Self::Leader,
        Self::Transfer,
        Self::Learner,
        Self::Compaction,
        Self::NoSpace,
        Self::Corrupt,
        Self::Killed,
        Self::KilledAtWork,
        Self::Frozen,
    ];

    pub fn wants_small_quota(self) -> bool {
        self == Self::NoSpace
    }

    pub async fn play<L: Lab>(self, lab: &L, seen: &mut Transcript) {
        match self {
            Self::Healthy => Box::pin(healthy(lab, seen)).await,
            Self::Follower => Box::pin(follower(lab, seen)).await,
            Self::Leader => Box::pin(leader(lab, seen)).await,
            Self::Transfer => Box::pin(transfer(lab, seen)).await,
            Self::Learner => Box::pin(learner(lab, seen)).await,
            Self::Compaction => Box::pin(compaction(lab, seen)).await,
            Self::NoSpace => Box::pin(no_space(lab, seen)).await,
            Self::Corrupt => Box::pin(corrupt(lab, seen)).await,
            Self::Killed => Box::pin(killed(lab, seen)).await,
            Self::KilledAtWork => Box::pin(killed_at_work(lab, seen)).await,
            Self::Frozen => Box::pin(frozen(lab, seen)).await,
        }
    }
}

async fn healthy<L: Lab>(lab: &L, seen: &mut Transcript) {
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { leader, followers, .. } = roles(lab, &all).await;
    for (role, member) in [("the leader", &leader), ("a follower", &followers[0])] {
        Box::pin(probe(lab, member, role, seen)).await;
        let status = status(lab, member).await;
        seen.note(&format!("Status of {role} tells a quota"), status.quota.is_some());
        seen.note(&format!("Status of {role} tells a storage version"), status.storage_version.is_some());
        seen.note(&format!("Status of {role} has errors"), !status.errors.is_empty());
        seen.note(&format!("Status of {role} says learner"), status.is_learner);
        seen.note("the part in use is within the file", status.db_size_in_use <= status.db_size);
        seen.note("it has applied no more than it has", status.raft_applied_index <= status.raft_index);
        let gauges = asked(etcd.gauges(member, Visit::Repeated)).await.unwrap();
        seen.note("its page tells the quota", gauges.quota.is_some());
        seen.note("its page tells the sizes", gauges.db_size.is_some() && gauges.db_size_in_use.is_some());
        seen.note("its page tells whether it defragments", format!("{:?}", gauges.defrag_in_flight));
    }
    seen.note("alarms", format!("{:?}", etcd.alarms(&leader).await.unwrap()));
    seen.note("writes are taken", lab.write(&followers[0]).await);
}

/// Everything that does not change anything, through one member and at the same time.
async fn probe<L: Lab>(lab: &L, member: &Member, role: &str, seen: &mut Transcript) {
    let (etcd, alone) = (lab.etcd(), lab.with_endpoint(member));
    let (members, status, read, gauges, alarms) = tokio::join!(
        asked(alone.members()),
        asked(etcd.status(member)),
        asked(etcd.linearizable_read(member)),
        asked(etcd.gauges(member, Visit::Repeated)),
        asked(etcd.alarms(member)),
    );
    seen.note(&format!("member list through {role}"), kind(&members));
    seen.note(&format!("Status of {role}"), kind(&status));
    seen.note(&format!("linearizable read through {role}"), kind(&read));
    seen.note(&format!("metrics page of {role}"), kind(&gauges));
    seen.note(&format!("alarms through {role}"), kind(&alarms));
}

async fn follower<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.fragment().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { leader, followers, term } = roles(lab, &all).await;
    let [busy, other] = [&followers[0], &followers[1]];
    let (before, before_other) = (status(lab, busy).await, status(lab, other).await);

    lab.hold_defrags().await;
    let sent = {
        let (etcd, busy) = (lab.etcd(), busy.clone());
        tokio::spawn(async move { etcd.defragment(&busy, &Permitted).await })
    };
    until_in_flight(lab, busy, true).await;
    Box::pin(probe(lab, busy, "the busy member", seen)).await;
    still_busy(lab, busy).await;
    Box::pin(probe(lab, other, "the other follower", seen)).await;
    Box::pin(probe(lab, &leader, "the leader", seen)).await;
    let second = {
        let (etcd, busy) = (lab.etcd(), busy.clone());
        tokio::spawn(async move { etcd.defragment(&busy, &Permitted).await })
    };
    seen.note("Defragment that looks first, of a busy member", end(&second.await.unwrap()));
    let queued = lab.defragment_blindly(busy);
    until("the second Defragment at the member", || async { lab.defrags_received(busy) == 2 }).await;
    still_busy(lab, busy).await;
    // The client disconnects, which no page of the server shows; the server continues.
    sent.abort();
    sleep(Duration::from_millis(500)).await;
    seen.note("after its client is gone it defragments", in_flight(lab, busy).await);
    seen.note("runs until then", lab.defrags_done(busy).await);
    lab.release_defrags();
    seen.note("the second Defragment, sent blindly, succeeds", queued.await.unwrap());
    until_in_flight(lab, busy, false).await;
    seen.note("runs in all", lab.defrags_done(busy).await);

    let (after, after_other) = (status(lab, busy).await, status(lab, other).await);
    seen.note("its file has shrunk to what is in use", after.db_size.0 < before.db_size_in_use.0 * 13 / 10);
    seen.note("the other's file is as it was", before_other.db_size == after_other.db_size);
    let now = roles(lab, &all).await;
    seen.note("the leader is the same, in the same term", now.leader.id == leader.id && now.term == term);
    let again = etcd.defragment(busy, &Permitted).await;
    seen.note("Defragment of a tight member", end(&again));
    Box::pin(probe(lab, busy, "the member afterwards", seen)).await;
}

/// Or else the scenario has not shown what it means to.
async fn still_busy<L: Lab>(lab: &L, member: &Member) {
    assert_eq!(in_flight(lab, member).await, "Some(true)", "its defragmentation was over too soon");
}

async fn in_flight<L: Lab>(lab: &L, member: &Member) -> String {
    format!("{:?}", asked(lab.etcd().gauges(member, Visit::Repeated)).await.unwrap().defrag_in_flight)
}

async fn leader<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.fragment().await;
    let all = voters(lab).await;
    let Roles { leader, followers, term } = roles(lab, &all).await;
    lab.hold_defrags().await;
    let sent = lab.defragment_blindly(&leader);
    until_in_flight(lab, &leader, true).await;
    Box::pin(probe(lab, &leader, "the busy leader", seen)).await;
    still_busy(lab, &leader).await;
    Box::pin(probe(lab, &followers[0], "a follower of it", seen)).await;
    still_busy(lab, &leader).await;
    lab.release_defrags();
    seen.note("Defragment", sent.await.unwrap());
    let now = roles(lab, &all).await;
    seen.note("the leader is the same, in the same term", now.leader.id == leader.id && now.term == term);
}

async fn transfer<L: Lab>(lab: &L, seen: &mut Transcript) {
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let before = roles(lab, &all).await;
    let [heir, other] = [&before.followers[0], &before.followers[1]];
    seen.note("MoveLeader sent to a follower", kind(&asked(etcd.move_leader(heir, other)).await));
    seen.note("MoveLeader", kind(&asked(etcd.move_leader(&before.leader, heir)).await));
    let now = roles(lab, &all).await;
    seen.note("the heir leads", now.leader.id == heir.id);
    seen.note("the term has risen", now.term > before.term);
    seen.note("MoveLeader sent to the old leader", kind(&asked(etcd.move_leader(&before.leader, heir)).await));

    // Away from a leader that defragments: the way out when it takes too long.
    lab.fragment().await;
    lab.hold_defrags().await;
    let sent = lab.defragment_blindly(heir);
    until_in_flight(lab, heir, true).await;
    seen.note("MoveLeader sent to a busy leader", kind(&asked(etcd.move_leader(heir, other)).await));
    still_busy(lab, heir).await;
    lab.release_defrags();
    seen.note("its defragmentation succeeds", sent.await.unwrap());
    let now = roles(lab, &all).await;
    seen.note("the next heir leads", now.leader.id == other.id);

    lab.kill(heir).await;
    let tries = tokio::time::timeout(PATIENCE * 4, etcd.move_leader(other, heir)).await;
    seen.note("MoveLeader to a member that is down succeeds", tries.is_ok_and(|answer| answer.is_ok()));
    let left = [other.clone(), before.leader.clone()];
    seen.note("the leader is the same", roles(lab, &left).await.leader.id == other.id);
}

async fn learner<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.add_learner().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { leader, followers, .. } = roles(lab, &all).await;
    let list = etcd.members().await.unwrap().members;
    let learner = list.iter().find(|member| member.is_learner).unwrap();
    until("an answer of the learner", || async { asked(etcd.status(learner)).await.is_ok() }).await;
    seen.note("Status says that it is one", status(lab, learner).await.is_learner);
    Box::pin(probe(lab, learner, "a learner", seen)).await;
    seen.note("Defragment of a learner", end(&etcd.defragment(learner, &Permitted).await));
    seen.note("Compact through a learner", kind(&asked(etcd.compact(learner, 1)).await));
    seen.note("MoveLeader to a learner", kind(&asked(etcd.move_leader(&leader, learner)).await));
    seen.note("MoveLeader sent to a learner", kind(&asked(etcd.move_leader(learner, &followers[0])).await));
    Box::pin(probe(lab, &followers[0], "a follower beside it", seen)).await;
}

async fn compaction<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.make_history().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { followers, .. } = roles(lab, &all).await;
    let mut before = Vec::new();
    for member in &all {
        before.push(status(lab, member).await);
    }
    let revision = before.iter().map(|status| status.revision).min().unwrap();
    let via = &followers[0];
    seen.note("Compact", kind(&asked(etcd.compact(via, revision)).await));
    seen.note("Compact of what is compacted", kind(&asked(etcd.compact(via, revision)).await));
    let future = revision + 1_000_000;
    seen.note("Compact of the future", kind(&asked(etcd.compact(via, future)).await));
    for (member, before) in all.iter().zip(&before) {
        let fell = comes(Duration::from_secs(30), || async {
            // An idle etcd counts its freed pages at its next commit.
            lab.write(via).await;
            status(lab, member).await.db_size_in_use.0 < before.db_size_in_use.0 * 9 / 10
        })
        .await;
        seen.note(&format!("in use falls on {}", member.name), fell);
        seen.note("its file is no smaller", status(lab, member).await.db_size >= before.db_size);
    }
    seen.note("writes are taken", lab.write(via).await);
}

async fn no_space<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.exhaust_quota().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { leader, followers, .. } = roles(lab, &all).await;
    // The member through which the quota was used up. What is written through another may still fit into its own file,
    // and is taken until the alarm is armed again.
    let via = &all[0];
    armed(lab, via, seen).await;
    for member in &all {
        let reported: Vec<_> = status(lab, member).await.reported_alarms().map(|alarm| alarm.kind).collect();
        seen.note(&format!("Status of {} reports it", member.name), reported.contains(&AlarmKind::NoSpace));
    }
    seen.note("writes are taken", lab.write(via).await);
    Box::pin(probe(lab, via, "a member", seen)).await;
    let revision = status(lab, via).await.revision;
    seen.note("Compact", kind(&asked(etcd.compact(via, revision)).await));

    // Too early: the files are still over the quota.
    disarm_all(lab, via, seen).await;
    armed(lab, via, seen).await;
    seen.note("writes are taken while the files are too large", lab.write(via).await);
    armed(lab, via, seen).await;

    for member in followers.iter().chain([&leader]) {
        seen.note(&format!("Defragment of {}", role(member, &leader)), end(&etcd.defragment(member, &Permitted).await));
        let status = status(lab, member).await;
        let quota = asked(etcd.gauges(member, Visit::Repeated)).await.unwrap().quota.unwrap();
        seen.note("its file is below the quota", status.db_size < quota);
    }
    seen.note("writes are taken before the alarm is disarmed", lab.write(via).await);
    armed(lab, via, seen).await;
    disarm_all(lab, via, seen).await;
    armed(lab, via, seen).await;
    seen.note("writes are taken now", lab.write(via).await);
    armed(lab, via, seen).await;
    let gone = defragd::core::cluster::Alarm { kind: AlarmKind::NoSpace, member: Some(via.id) };
    seen.note("an alarm that is not armed, disarmed", kind(&asked(etcd.disarm(via, gone)).await));
}

fn role(member: &Member, leader: &Member) -> &'static str {
    if member.id == leader.id { "the leader" } else { "a follower" }
}

async fn armed<L: Lab>(lab: &L, via: &Member, seen: &mut Transcript) {
    let alarms = asked(lab.etcd().alarms(via)).await.unwrap();
    let armed = |kind: AlarmKind| alarms.iter().any(|alarm| alarm.kind == kind);
    let named = alarms.iter().all(|alarm| alarm.member.is_some());
    let (no_space, corrupt) = (armed(AlarmKind::NoSpace), armed(AlarmKind::Corrupt));
    seen.note("armed", format!("NOSPACE {no_space}, CORRUPT {corrupt}, each names a member {named}"));
}

async fn disarm_all<L: Lab>(lab: &L, via: &Member, seen: &mut Transcript) {
    let etcd = lab.etcd();
    let mut all_taken = true;
    for alarm in asked(etcd.alarms(via)).await.unwrap() {
        all_taken &= asked(etcd.disarm(via, alarm)).await.is_ok();
    }
    seen.note("every alarm is disarmed without an error", all_taken);
}

async fn corrupt<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.make_history().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { leader, followers, .. } = roles(lab, &all).await;
    let via = &followers[0];
    lab.arm_corrupt(via).await;
    armed(lab, via, seen).await;
    seen.note("writes are taken", lab.write(via).await);
    Box::pin(probe(lab, via, "a member", seen)).await;
    let revision = status(lab, via).await.revision;
    seen.note("Compact", kind(&asked(etcd.compact(via, revision)).await));
    seen.note("Defragment of a follower", end(&etcd.defragment(&followers[1], &Permitted).await));
    seen.note("Defragment of the leader", end(&etcd.defragment(&leader, &Permitted).await));
    seen.note("MoveLeader", kind(&asked(etcd.move_leader(&leader, via)).await));
    let now = roles(lab, &all).await;
    seen.note("the heir leads", now.leader.id == via.id);
    disarm_all(lab, via, seen).await;
    armed(lab, via, seen).await;
    seen.note("writes are taken when it is disarmed", lab.write(via).await);
}

async fn killed<L: Lab>(lab: &L, seen: &mut Transcript) {
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let before = roles(lab, &all).await;
    let [first, last] = [&before.followers[0], &before.followers[1]];
    lab.kill(first).await;
    Box::pin(probe(lab, first, "a dead member", seen)).await;
    seen.note("Defragment of a dead member", end(&etcd.defragment(first, &Permitted).await));
    Box::pin(probe(lab, last, "the other follower", seen)).await;
    seen.note("the member list has it still", etcd.members().await.unwrap().members.len());
    let two = [before.leader.clone(), last.clone()];
    let now = roles(lab, &two).await;
    seen.note("the leader is the same, in the same term", now.leader.id == before.leader.id && now.term == before.term);
    seen.note("writes are taken by two of three", lab.write(last).await);

    lab.kill(&before.leader).await;
    until("the loss of the leader", || async { asked(etcd.status(last)).await.is_ok_and(|s| s.leader.is_none()) })
        .await;
    Box::pin(probe(lab, last, "the only one left", seen)).await;
    let no_leader = status(lab, last).await.errors.iter().any(|error| error.contains("no leader"));
    seen.note("its Status says so", no_leader);
    seen.note("writes are taken by one of three", lab.write(last).await);
    seen.note("Compact through it", kind(&asked(etcd.compact(last, 1)).await));
    seen.note("MoveLeader sent to it", kind(&asked(etcd.move_leader(last, first)).await));
    seen.note("Defragment of it", end(&etcd.defragment(last, &Permitted).await));

    lab.restart(first).await;
    let two = [first.clone(), last.clone()];
    let now = roles(lab, &two).await;
    seen.note("the term has risen", now.term > before.term);
    until("reads", || async { asked(etcd.linearizable_read(last)).await.is_ok() }).await;
    seen.note("writes are taken by two of three again", lab.write(last).await);
    lab.restart(&before.leader).await;
    let now = roles(lab, &all).await;
    seen.note("the old leader follows", now.leader.id != before.leader.id);
    until("reads", || async { asked(etcd.linearizable_read(&before.leader)).await.is_ok() }).await;
    Box::pin(probe(lab, &before.leader, "the old leader", seen)).await;

    lab.kill(&now.leader).await;
    let rest = now.followers.clone();
    let after = roles(lab, &rest).await;
    seen.note("the others have another leader, in a later term", after.term > now.term);
}

async fn killed_at_work<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.fragment().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let Roles { leader, followers, .. } = roles(lab, &all).await;
    let [busy, other] = [&followers[0], &followers[1]];
    let before = status(lab, busy).await;
    lab.hold_defrags().await;
    let sent = {
        let (etcd, busy) = (lab.etcd(), busy.clone());
        tokio::spawn(async move { etcd.defragment(&busy, &Permitted).await })
    };
    until_in_flight(lab, busy, true).await;
    lab.kill(busy).await;
    seen.note("Defragment", end(&sent.await.unwrap()));
    Box::pin(probe(lab, busy, "the dead member", seen)).await;
    Box::pin(probe(lab, other, "another follower", seen)).await;
    lab.release_defrags();
    lab.restart(busy).await;
    let now = roles(lab, &all).await;
    seen.note("the leader is the same", now.leader.id == leader.id);
    until("reads", || async { asked(etcd.linearizable_read(busy)).await.is_ok() }).await;
    Box::pin(probe(lab, busy, "the member, back again", seen)).await;
    let after = status(lab, busy).await;
    seen.note("its file is as large as it was", after.db_size >= before.db_size);
    seen.note("its page tells whether it defragments", in_flight(lab, busy).await);
    seen.note("runs since its start", lab.defrags_done(busy).await);
    seen.note("Defragment once more", end(&etcd.defragment(busy, &Permitted).await));
    let after = status(lab, busy).await;
    seen.note("its file has shrunk to what is in use", after.db_size.0 < before.db_size_in_use.0 * 13 / 10);
}

async fn frozen<L: Lab>(lab: &L, seen: &mut Transcript) {
    lab.fragment().await;
    let etcd = lab.etcd();
    let all = voters(lab).await;
    let before = roles(lab, &all).await;
    let [frozen, other] = [&before.followers[0], &before.followers[1]];
    lab.freeze(frozen);
    Box::pin(probe(lab, frozen, "a frozen member", seen)).await;
    seen.note("Defragment that looks first", end(&etcd.defragment(frozen, &Permitted).await));
    Box::pin(probe(lab, other, "the other follower", seen)).await;
    Box::pin(probe(lab, &before.leader, "the leader", seen)).await;
    lab.thaw(frozen);
    until("reads", || async { asked(etcd.linearizable_read(frozen)).await.is_ok() }).await;
    let now = roles(lab, &all).await;
    seen.note("the leader is the same", now.leader.id == before.leader.id);
    seen.note("runs", lab.defrags_done(frozen).await);

    // Frozen in the middle of its work, it continues where it was, and its answer comes.
    lab.hold_defrags().await;
    let sent = lab.defragment_blindly(frozen);
    until_in_flight(lab, frozen, true).await;
    lab.freeze(frozen);
    sleep(PATIENCE).await;
    seen.note("a frozen member has answered Defragment", sent.is_finished());
    Box::pin(probe(lab, frozen, "a member that is frozen at work", seen)).await;
    lab.thaw(frozen);
    lab.release_defrags();
    seen.note("Defragment", sent.await.unwrap());
    seen.note("runs", lab.defrags_done(frozen).await);

    lab.freeze(&before.leader);
    let rest = [frozen.clone(), other.clone()];
    let now = roles(lab, &rest).await;
    seen.note("without its leader the cluster has another, in a later term", now.term > before.term);
    lab.thaw(&before.leader);
    let last = roles(lab, &all).await;
    seen.note("the old leader follows the new one", last.leader.id == now.leader.id);
}
