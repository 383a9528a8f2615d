//! Queries every member at once and gathers what is known when the time is up. Never fails as a whole because one
//! member does; a fact that did not arrive in time is unknown.

use std::{collections::BTreeMap, future::Future, time::Duration};

use bytesize::ByteSize;
use futures_util::future::{Either, join, join_all, select};
use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, timeout},
};

use crate::{
    core::{
        cluster::{Alarm, ClusterFacts, Fact, Gauges, Member, MemberFacts, MemberId, Status, Unknown, UnknownKind},
        run::Pages,
    },
    ports::etcd::{Etcd, Membership, Visit},
};

/// For an [`observe_status`] that no scrape bounds: the same as etcdctl's default command timeout.
pub const OBSERVE_BUDGET: Duration = Duration::from_secs(5);
/// How long each RPC of a full observation may take. Longer than an election takes, and shorter than etcd's own limit
/// of 7 s for a request, so that the timeout is ours.
const RPC_LIMIT: Duration = Duration::from_secs(5);
/// The metrics page is requested as well from a member whose `Status` takes longer than this.
const SUSPICIOUS_AFTER: Duration = Duration::from_millis(300);

/// The quotas that an observation found.
pub type Quotas = BTreeMap<MemberId, ByteSize>;

/// Everything that a plan needs to know.
pub async fn observe_all<E: Etcd>(etcd: &E) -> Fact<ClusterFacts> {
    observe(etcd, Pages::All, &Quotas::new()).await
}

/// `Status` and a linearizable read of each member, these metrics pages, and the alarms. A member whose page is not
/// requested keeps its quota of the last observation.
pub async fn observe<E: Etcd>(etcd: &E, pages: Pages, last: &Quotas) -> Fact<ClusterFacts> {
    let membership = limited("the member list", RPC_LIMIT, etcd.members()).await?;
    let observe = |member: &Member| {
        let quota = last.get(&member.id).copied();
        observe_member(etcd, member.clone(), pages.include(member.id), quota)
    };
    let members = join_all(membership.members.iter().map(observe));
    let (members, alarms) = join(members, list_alarms(etcd, &membership)).await;
    let alarms = alarms.map(|alarms| with_reported(alarms, &members));
    let mut facts = ClusterFacts { cluster_id: membership.cluster_id, alarms, members };
    facts.assume_quota(etcd.quota_override());
    Ok(facts)
}

/// Of the members that answered.
pub fn quotas(facts: &ClusterFacts) -> Quotas {
    facts.members.iter().filter_map(|facts| Some((facts.member.id, facts.status.as_ref().ok()?.quota?))).collect()
}

async fn observe_member<E: Etcd>(etcd: &E, member: Member, with_page: bool, quota: Option<ByteSize>) -> MemberFacts {
    let begun = Instant::now();
    let (answered, answer) = oneshot::channel();
    let status = async {
        let status = limited("Status", RPC_LIMIT, etcd.status(&member)).await;
        let _ = answered.send(status.is_ok());
        (status, begun.elapsed())
    };
    let gauges = async {
        if !with_page && matches!(timeout(SUSPICIOUS_AFTER, answer).await, Ok(Ok(true))) {
            return None;
        }
        Some(limited("the metrics page", RPC_LIMIT, etcd.gauges(&member, Visit::Repeated)).await)
    };
    // Learners serve no linearizable reads, and need not: they are not defragmented and do not vote.
    let read = async {
        if member.is_learner {
            None
        } else {
            Some(limited("the read", RPC_LIMIT, etcd.linearizable_read(&member)).await)
        }
    };
    let ((status, probe_duration), (gauges, linearizable_read)) = join(status, join(gauges, read)).await;
    let status = status.map(|status| with_quota(status, gauges.as_ref(), quota));
    MemberFacts { member, status, gauges, linearizable_read, probe_duration }
}

/// The quota in `Status`, since 3.6, takes precedence; before 3.6 it is only on the metrics page. A page that was not
/// requested leaves it as it was.
fn with_quota(mut status: Status, gauges: Option<&Fact<Gauges>>, last: Option<ByteSize>) -> Status {
    let other = || match gauges {
        Some(gauges) => gauges.as_ref().ok()?.quota,
        None => last,
    };
    status.quota = status.quota.or_else(other);
    status
}

/// Queries one voter after the other until one answers: the listing goes through raft, so once is enough.
async fn list_alarms<E: Etcd>(etcd: &E, membership: &Membership) -> Fact<Vec<Alarm>> {
    let mut last = Unknown::new(UnknownKind::Other, "the cluster has no voting member");
    let begun = Instant::now();
    for member in membership.members.iter().filter(|member| !member.is_learner) {
        // All of them together within the limit: an observation must not become stale while it is made.
        let limit = (RPC_LIMIT / 3).min(RPC_LIMIT.saturating_sub(begun.elapsed()));
        match limited("the alarm list", limit, etcd.alarms(member)).await {
            Ok(alarms) => return Ok(alarms),
            Err(unknown) => last = Unknown::new(unknown.kind, format!("{}: {}", member.label(), unknown.detail)),
        }
    }
    Err(last)
}

/// The listed alarms and those in the members' `Status`: a dangerous one must not be missed.
fn with_reported(mut alarms: Vec<Alarm>, members: &[MemberFacts]) -> Vec<Alarm> {
    for alarm in reported_alarms(members).unwrap_or_default() {
        if !alarms.contains(&alarm) {
            alarms.push(alarm);
        }
    }
    alarms
}

/// The alarms in the members' `Status`; unknown if no member answered.
fn reported_alarms(members: &[MemberFacts]) -> Fact<Vec<Alarm>> {
    let mut answered = members.iter().filter_map(|facts| facts.status.as_ref().ok()).peekable();
    if answered.peek().is_none() {
        return Err(Unknown::new(UnknownKind::Unreachable, "no member answered"));
    }
    let mut alarms: Vec<Alarm> = Vec::new();
    for alarm in answered.flat_map(Status::reported_alarms) {
        if !alarms.contains(&alarm) {
            alarms.push(alarm);
        }
    }
    Ok(alarms)
}

/// What is remembered of a member between observations for scrapes.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Its quota; without it, the metrics page is requested.
    pub quota: Option<ByteSize>,
    /// Why the metrics page is not requested for the quota.
    pub page: Option<Unknown>,
}

/// What a scrape exports, within `budget`: local reads only, nothing that goes through raft. `known` is the last
/// known membership, shown as down when no endpoint answers. The quota from the configuration is left to the
/// caller, who remembers what members report. The first part of the answer is why no endpoint answered,
/// if none did.
pub async fn observe_for_scrape<E: Etcd>(
    etcd: &E,
    budget: Duration,
    known: impl FnOnce() -> Option<Membership>,
    remembered: impl Fn(&Member) -> Remembered,
) -> (Fact<()>, Option<(Membership, ClusterFacts)>) {
    let begun = Instant::now();
    // At most half of the budget: the members must be queried, too.
    let listed = limited("the member list", budget / 2, etcd.members()).await;
    let rest = budget.saturating_sub(begun.elapsed());
    let (up, listed) = match listed {
        Ok(membership) => (Ok(()), Some(membership)),
        Err(unknown) => (Err(unknown), None),
    };
    let Some(membership) = listed.or_else(known) else { return (up, None) };
    let members = membership.members.iter().map(|member| observe_member_status(etcd, member, rest, remembered(member)));
    let members = join_all(members).await;
    let facts = ClusterFacts { cluster_id: membership.cluster_id, alarms: reported_alarms(&members), members };
    (up, Some((membership, facts)))
}

/// One observation for a command: what a scrape exports, or why no endpoint answered.
pub async fn observe_status<E: Etcd>(etcd: &E, budget: Duration) -> Fact<ClusterFacts> {
    let membership = limited("the member list", budget, etcd.members()).await?;
    let members =
        membership.members.iter().map(|member| observe_member_status(etcd, member, budget, Remembered::default()));
    let members = join_all(members).await;
    let mut facts = ClusterFacts { cluster_id: membership.cluster_id, alarms: reported_alarms(&members), members };
    facts.assume_quota(etcd.quota_override());
    Ok(facts)
}

/// The same, with each member's metrics page, which would be too expensive for every scrape.
pub async fn observe_with_gauges<E: Etcd>(etcd: &E, budget: Duration) -> Fact<ClusterFacts> {
    let begun = Instant::now();
    let mut facts = observe_status(etcd, budget).await?;
    let rest = budget.saturating_sub(begun.elapsed());
    join_all(facts.members.iter_mut().filter(|member| member.gauges.is_none()).map(|facts| async {
        let page = limited("the metrics page", rest, etcd.gauges(&facts.member, Visit::Single)).await;
        facts.gauges = Some(page);
    }))
    .await;
    Ok(facts)
}

async fn observe_member_status<E: Etcd>(
    etcd: &E,
    member: &Member,
    budget: Duration,
    Remembered { quota, page: not_asked }: Remembered,
) -> MemberFacts {
    let begun = Instant::now();
    let status = Box::pin(limited("Status", budget, etcd.status(member)));
    let wanted = Notify::new();
    // Only a member that may be defragmenting is asked for its page too ...
    let page = Box::pin(async {
        let _ = timeout(SUSPICIOUS_AFTER, wanted.notified()).await;
        limited("the metrics page", budget, etcd.gauges(member, Visit::Single)).await
    });
    let (status, gauges) = match select(status, page).await {
        // ... or one whose quota is not known yet.
        Either::Left((Ok(status), page)) if status.quota.or(quota).is_none() => {
            wanted.notify_one();
            let rest = budget.saturating_sub(begun.elapsed());
            let page = match not_asked {
                Some(unknown) => Err(unknown),
                None => limited("the metrics page", rest, page).await,
            };
            (Ok(status), Some(page))
        }
        Either::Left((Ok(status), _)) => (Ok(status), None),
        Either::Left((Err(unknown), page)) => {
            let rest = budget.saturating_sub(begun.elapsed()).min(SUSPICIOUS_AFTER);
            (Err(unknown), timeout(rest, page).await.ok())
        }
        // It is known to be busy: its `Status` will not answer before the end of the defragmentation.
        Either::Right((Ok(gauges), status)) if gauges.defrag_in_flight == Some(true) => {
            (timeout(SUSPICIOUS_AFTER, status).await.unwrap_or_else(|_| Err(busy())), Some(Ok(gauges)))
        }
        Either::Right((gauges, status)) => (status.await, Some(gauges)),
    };
    let probe_duration = begun.elapsed();
    let mut status = status;
    if let Ok(status) = &mut status {
        let reported = gauges.as_ref().and_then(|gauges| gauges.as_ref().ok()?.quota);
        status.quota = status.quota.or(reported).or(quota);
    }
    MemberFacts { member: member.clone(), status, gauges, linearizable_read: None, probe_duration }
}

fn busy() -> Unknown {
    Unknown::new(UnknownKind::TimedOut, "it is being defragmented")
}

async fn limited<T>(what: &str, limit: Duration, answer: impl Future<Output = Fact<T>>) -> Fact<T> {
    timeout(limit, answer).await.unwrap_or_else(|_| Err(Unknown::timed_out(what, limit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::fake::FakeEtcd;

    #[tokio::test(start_paused = true)]
    async fn a_hung_member_costs_a_scrape_no_more_than_its_budget() {
        let etcd = FakeEtcd::new(3);
        etcd.hang(2);
        let begun = Instant::now();
        let (up, facts) = observe_for_scrape(&etcd, Duration::from_secs(9), || None, |_| Remembered::default()).await;
        assert!(begun.elapsed() <= Duration::from_secs(9));
        let (_, facts) = facts.expect("the others answered");
        assert!(up.is_ok());
        assert_eq!(facts.members.iter().filter(|member| member.status.is_ok()).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_is_known_to_defragment_does_not_hold_up_a_scrape() {
        let etcd = FakeEtcd::new(3);
        etcd.set_busy(2, true);
        let begun = Instant::now();
        let (_, facts) = observe_for_scrape(&etcd, Duration::from_secs(9), || None, |_| Remembered::default()).await;
        assert!(begun.elapsed() <= Duration::from_secs(1));
        assert_eq!(facts.expect("answered").1.members[1].defrag_in_flight(), Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_endpoint_the_members_of_last_time_are_shown_as_down() {
        let etcd = FakeEtcd::new(3);
        let known = etcd.members().await.expect("it is up");
        for id in 1..=3 {
            etcd.hang(id);
        }
        let (up, facts) =
            observe_for_scrape(&etcd, Duration::from_secs(9), || Some(known), |_| Remembered::default()).await;
        assert!(up.is_err());
        assert!(facts.expect("remembered").1.members.iter().all(|member| member.status.is_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_page_of_a_member_that_does_not_answer_is_read_in_any_case() {
        let etcd = FakeEtcd::new(3);
        etcd.set_busy(2, true);
        let quotas = Quotas::from([(MemberId(1), ByteSize::gib(8)), (MemberId(3), ByteSize::gib(8))]);
        let facts = observe(&etcd, Pages::Only(MemberId(3)), &quotas).await.expect("observed");
        let in_flight: Vec<_> = facts.members.iter().map(MemberFacts::defrag_in_flight).collect();
        assert_eq!((in_flight, etcd.pages_asked()), (vec![Some(false), Some(true), Some(false)], 2));
        assert!(facts.members[0].gauges.is_none(), "it answers, so it is idle");
    }

    #[tokio::test(start_paused = true)]
    async fn a_quota_is_kept_only_while_its_page_is_not_requested() {
        let etcd = FakeEtcd::new(3);
        etcd.drop_pages(false);
        let last = Quotas::from([(MemberId(1), ByteSize::gib(8)), (MemberId(3), ByteSize::gib(8))]);
        let facts = observe(&etcd, Pages::Only(MemberId(3)), &last).await.expect("observed");
        assert_eq!(quotas(&facts), Quotas::from([(MemberId(1), ByteSize::gib(8)), (MemberId(3), ByteSize::gib(2))]));
        etcd.drop_pages(true);
        let facts = observe(&etcd, Pages::Only(MemberId(3)), &last).await.expect("observed");
        assert_eq!(quotas(&facts), Quotas::from([(MemberId(1), ByteSize::gib(8))]), "its page cannot be read any more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_alarms_are_listed_through_another_voter_when_one_hangs() {
        let etcd = FakeEtcd::new(3);
        etcd.hang(1);
        let facts = observe_all(&etcd).await.expect("observed");
        assert_eq!(facts.alarms, Ok(Vec::new()));
    }
}
