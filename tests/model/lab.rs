//! What a scenario can do to a cluster, and how it records the answers.

use std::{future::Future, sync::Arc, time::Duration};

use defragd::{
    core::{
        cluster::{Fact, Member, Status, Unknown, UnknownKind},
        run::DefragError,
    },
    ports::etcd::{Etcd, Visit},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// What has not answered by then hangs: below the seven seconds after which etcd gives a read up.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// What comes by itself (an election, a compaction's pages) comes within this: each try of an election takes patient
/// members up to twelve seconds.
const COMES_WITHIN: Duration = Duration::from_mins(3);

/// A cluster of three voters, named `etcd-1` to `etcd-3`, real or not. What it does beside the port is what
/// operators, accidents and other clients do.
pub trait Lab: Sync {
    type Etcd: Etcd;

    /// As defragd has it.
    fn etcd(&self) -> Arc<Self::Etcd>;
    /// The same with this member as its only endpoint.
    fn with_endpoint(&self, member: &Member) -> Arc<Self::Etcd>;
    /// Defragment by a client that looks at nothing first, as etcdctl.
    fn defragment_blindly(&self, member: &Member) -> JoinHandle<bool>;
    /// The next defragmentation of each member lasts until it is released: longer than any scenario needs.
    fn hold_defrags(&self) -> impl Future<Output = ()> + Send;
    /// Lets them end.
    fn release_defrags(&self);
    /// How many Defragments have reached the member since it was made, those that wait for another included.
    fn defrags_received(&self, member: &Member) -> usize;
    /// How many the member has finished since it started, by its own metrics.
    fn defrags_done(&self, member: &Member) -> impl Future<Output = u64> + Send;
    /// kill -9.
    fn kill(&self, member: &Member) -> impl Future<Output = ()> + Send;
    fn restart(&self, member: &Member) -> impl Future<Output = ()> + Send;
    /// SIGSTOP and SIGCONT.
    fn freeze(&self, member: &Member);
    fn thaw(&self, member: &Member);
    fn add_learner(&self) -> impl Future<Output = ()> + Send;
    /// A few writes, one after the other, through this member; whether the last was taken.
    fn write(&self, via: &Member) -> impl Future<Output = bool> + Send;
    /// The members' files hold this much that nothing uses.
    fn fragment(&self) -> impl Future<Output = ()> + Send;
    /// Old revisions that a compaction frees.
    fn make_history(&self) -> impl Future<Output = ()> + Send;
    /// A file passes its quota; what is in use is far below it.
    fn exhaust_quota(&self) -> impl Future<Output = ()> + Send;
    fn arm_corrupt(&self, member: &Member) -> impl Future<Output = ()> + Send;
}

/// What was seen, in order, one sentence each.
#[derive(Default)]
pub struct Transcript(pub Vec<String>);

impl Transcript {
    pub fn note(&mut self, what: &str, how: impl ToString) {
        self.0.push(format!("{what}: {}", how.to_string()));
    }
}

/// Waits no longer than an impatient client.
pub async fn asked<T>(call: impl Future<Output = Fact<T>>) -> Fact<T> {
    timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(Unknown::timed_out("it", PATIENCE)))
}

/// What kind of answer it is, as defragd tells them apart.
pub fn kind<T>(answer: &Fact<T>) -> String {
    let Err(unknown) = answer else { return "answers".to_owned() };
    // The server's own words, where it has any.
    let words =
        ["rpc not supported for learner", "not leader", "corrupt", "future revision", "no leader", "transferee"];
    let said = words.into_iter().find(|words| unknown.detail.contains(words));
    match (unknown.kind, said) {
        (UnknownKind::TimedOut, _) => "hangs".to_owned(),
        (kind, Some(said)) => format!("{kind:?} ({said})"),
        (kind, None) => format!("{kind:?}"),
    }
}

/// The same for Defragment.
pub fn end(answer: &Result<(), DefragError>) -> &'static str {
    match answer {
        Ok(()) => "done",
        Err(DefragError::Answered(_)) => "an error",
        Err(DefragError::NotSent(_) | DefragError::Withheld(_)) => "not sent",
        Err(DefragError::Denied(_)) => "denied",
        Err(DefragError::DiskFull(_)) => "disk full",
        Err(DefragError::Lost(_)) => "no answer, it may run",
        Err(DefragError::Deadline) => "deadline",
    }
}

/// The members of now: the leader, the other voters by name, and learners.
pub struct Roles {
    pub leader: Member,
    pub followers: Vec<Member>,
    pub term: u64,
}

/// Waits until all of these voters follow one leader.
pub async fn roles<L: Lab>(lab: &L, among: &[Member]) -> Roles {
    let etcd = lab.etcd();
    let begun = Instant::now();
    loop {
        let mut reported = Vec::new();
        for member in among {
            reported.push(
                asked(etcd.status(member)).await.ok().and_then(|status| Some((status.leader?, status.raft_term))),
            );
        }
        if let Some(Some((leader, term))) = reported.first()
            && reported.iter().all(|other| *other == Some((*leader, *term)))
            && let Some(leader) = among.iter().find(|member| member.id == *leader)
        {
            let followers = among.iter().filter(|member| member.id != leader.id).cloned().collect();
            return Roles { leader: leader.clone(), followers, term: *term };
        }
        assert!(begun.elapsed() < COMES_WITHIN, "no leader that all follow: {reported:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The voters, by name.
pub async fn voters<L: Lab>(lab: &L) -> Vec<Member> {
    let mut members = lab.etcd().members().await.unwrap().members;
    members.retain(|member| !member.is_learner);
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members
}

/// A status that must be there.
pub async fn status<L: Lab>(lab: &L, member: &Member) -> Status {
    asked(lab.etcd().status(member)).await.unwrap_or_else(|unknown| panic!("{}: {unknown}", member.name))
}

/// Waits until the member says that it defragments, or no longer.
pub async fn until_in_flight<L: Lab>(lab: &L, member: &Member, wanted: bool) {
    let etcd = lab.etcd();
    until("the gauge", || async {
        let gauges = asked(etcd.gauges(member, Visit::Repeated)).await;
        gauges.is_ok_and(|gauges| gauges.defrag_in_flight == Some(wanted))
    })
    .await;
}

/// Waits for what must come.
pub async fn until<F: Future<Output = bool>>(what: &str, mut there: impl FnMut() -> F) {
    let begun = Instant::now();
    while !there().await {
        assert!(begun.elapsed() < COMES_WITHIN, "{what} does not come");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whether it comes at all.
pub async fn comes<F: Future<Output = bool>>(within: Duration, mut there: impl FnMut() -> F) -> &'static str {
    let begun = Instant::now();
    while begun.elapsed() < within {
        if there().await {
            return "yes";
        }
        sleep(Duration::from_millis(50)).await;
    }
    "no"
}
