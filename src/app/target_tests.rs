use super::*;
use crate::{app::fake::FakeEtcd, core::cluster::MemberFacts};

const BUDGET: Duration = Duration::from_secs(9);

fn target() -> ObservedCluster<FakeEtcd> {
    let etcd = FakeEtcd::new(3);
    etcd.drop_pages(true);
    ObservedCluster::new("a".to_owned(), etcd)
}

/// What a scrape sees of the members, and how many pages have been requested by then.
async fn scrape(target: &ObservedCluster<FakeEtcd>) -> (Vec<MemberFacts>, usize) {
    let facts = target.observe_for_scrape(BUDGET).await.facts.expect("listed");
    (facts.members, target.etcd().pages_asked())
}

#[tokio::test(start_paused = true)]
async fn after_three_pages_that_did_not_come_scrapes_request_one_a_minute() {
    let target = target();
    let expect = async |asked: usize| {
        let (members, requested) = scrape(&target).await;
        assert_eq!(requested, asked);
        for member in members {
            assert_eq!(member.status.expect("it answers").quota, None);
            let unknown = member.gauges.expect("unknown is not the same as not needed").expect_err("dropped");
            assert_eq!(unknown.kind, UnknownKind::TimedOut);
        }
    };
    for asked in [3, 6, 9] {
        expect(asked).await;
    }
    let begun = Instant::now();
    for _ in 0..3 {
        expect(9).await;
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing is waited for");

    tokio::time::advance(PAGE_AGAIN_AFTER).await;
    for asked in [12, 12] {
        expect(asked).await;
    }

    tokio::time::advance(PAGE_AGAIN_AFTER).await;
    target.etcd().drop_pages(false);
    let (members, asked) = scrape(&target).await;
    assert_eq!(asked, 15);
    assert!(members.iter().all(|member| member.status.as_ref().is_ok_and(|status| status.quota.is_some())));
    tokio::time::advance(QUOTA_REMEMBERED_FOR).await;
    target.etcd().drop_pages(true);
    for asked in [18, 21, 24, 24] {
        assert_eq!(scrape(&target).await.1, asked, "three more tries after one that came");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_run_sees_and_a_member_that_may_defragment_are_requested_all_the_same() {
    let target = target();
    for _ in 0..4 {
        scrape(&target).await;
    }
    assert_eq!(target.etcd().pages_asked(), 9);
    for asked in [12, 15] {
        target.observe().await.expect("listed");
        assert_eq!(target.etcd().pages_asked(), asked);
    }
    // Its `Status` hangs, and only the page can tell why: nothing else is delayed by it.
    target.etcd().set_busy(2, true);
    let (members, asked) = scrape(&target).await;
    assert_eq!((asked, members[1].status.is_err()), (16, true));
    target.etcd().drop_pages(false);
    let (members, _) = scrape(&target).await;
    assert_eq!(members[1].defrag_in_flight(), Some(true));
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_may_lead_to_other_pages() {
    let target = target();
    for _ in 0..4 {
        scrape(&target).await;
    }
    let etcd = FakeEtcd::new(3);
    etcd.drop_pages(false);
    target.replace(etcd);
    let (members, _) = scrape(&target).await;
    assert!(members.iter().all(|member| member.status.as_ref().is_ok_and(|status| status.quota.is_some())));
}

#[tokio::test]
async fn credentials_that_are_rejected_are_logged_once_for_each_cause() {
    let (logged, _guard) = crate::app::problems::tests::Logged::begin();
    let target = target();
    for cause in ["the client key is not usable", "certificate and key do not belong together"] {
        target.etcd().find(Renewal::Refused(cause.to_owned()));
        for _ in 0..3 {
            target.renew().await;
            let lines = logged.lines("the changed credentials are invalid");
            assert_eq!(lines.iter().filter(|line| line.contains(cause)).count(), 1, "{lines:?}");
            assert!(target.refuses_credentials());
        }
    }
}

#[tokio::test]
async fn credentials_that_are_valid_again_are_logged_once() {
    let (logged, _guard) = crate::app::problems::tests::Logged::begin();
    let target = target();
    target.memory.lock().refused = Some("the client key is not usable".to_owned());
    for _ in 0..2 {
        target.renew().await;
        assert_eq!(logged.lines("the credentials are valid again").len(), 1);
    }
}
