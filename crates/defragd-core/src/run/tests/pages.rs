//! Which metrics pages each observation reads.

use super::*;
use crate::{history::MemberEnd, policy::VerifyPolicy};

const fn only(member: u64) -> Pages {
    Pages::Only(MemberId(member))
}

fn without_pause(leader: LeaderPolicy) -> Policy {
    Policy { pause_between_members: Duration::ZERO, leader, ..policy() }
}

fn idle(open_snapshots: u64) -> Gauges {
    Gauges { defrag_in_flight: Some(false), open_snapshots: Some(open_snapshots), ..Gauges::default() }
}

#[test]
fn every_page_is_read_right_before_a_member_and_after_it_only_that_of_the_next_one() {
    let mut bench = Bench::new(without_pause(LeaderPolicy::Last));
    assert_eq!(bench.label(), ("succeeded", ""));
    let around = |next| [Pages::All, next];
    let expected = [&[Pages::All][..], &around(only(2)), &around(only(1)), &around(Pages::None)].concat();
    assert_eq!((bench.pages, bench.order), (expected, vec![3, 2, 1]));

    let mut bench = Bench::new(without_pause(LeaderPolicy::LastAfterTransfer));
    assert_eq!(bench.label(), ("succeeded", ""));
    // Before the transfer, and before the member.
    assert_eq!(bench.pages[4..], [only(1), Pages::All, only(1), Pages::All, Pages::None]);
}

#[test]
fn in_a_pause_only_the_observation_that_ends_it_reads_the_page_of_the_next_member() {
    let mut bench = Bench::new(policy());
    bench.until(|action| matches!(action, Action::RecordResult(_)));
    let pause = [&[Pages::None; 10][..], &[only(2)]].concat();
    assert_eq!(bench.pages, [vec![Pages::All; 2], pause].concat());
    bench.until_defragment();
    assert_eq!(bench.pages[13..], [Pages::All], "chosen by what ended the pause, and confirmed");
}

#[test]
fn a_pause_that_ends_with_a_slow_observation_is_followed_by_one_with_all_pages() {
    let mut bench = Bench::new(policy());
    bench.until_defragment();
    bench.until(|action| matches!(action, Action::Observe { after, .. } if !after.is_zero()));
    bench.now += policy().pause_between_members;
    bench.step();
    assert!(matches!(bench.action, Action::RecordResult(_)), "{:?}", bench.action);
    assert_eq!(bench.pages.last(), Some(&Pages::None));
    bench.step();
    assert_eq!(bench.action, Action::Observe { after: Duration::ZERO, pages: Pages::All });
}

#[test]
fn another_tools_defragmentation_on_any_member_is_seen_before_status_hangs() {
    for index in 0..3 {
        let mut bench = Bench::new(policy());
        bench.until(|action| matches!(action, Action::RecordIntent(_)));
        let busy = Gauges { defrag_in_flight: Some(true), ..idle(0) };
        bench.facts.members[index].gauges = Some(Ok(busy));
        let Action::RecordResult(result) = bench.until(|action| matches!(action, Action::RecordResult(_))) else {
            unreachable!()
        };
        let MemberEnd::NotSent { reason } = result.end else { panic!("{:?}", result.end) };
        let expected = ("defrag_in_flight", Some(&Pages::All), 0);
        assert_eq!((reason.label(), bench.pages.last(), bench.order.len()), expected, "{reason}");
    }
}

#[test]
fn a_member_that_may_answer_at_work_has_its_page_read_each_time() {
    let mut bench = Bench::new(policy());
    bench.facts.members[0].gauges = Some(Ok(Gauges { non_blocking_defrag: Some(true), ..idle(0) }));
    bench.step();
    bench.facts.members[0].gauges = Some(Ok(idle(0)));
    assert_eq!(bench.label(), ("succeeded", ""));
    assert!(bench.pages.iter().all(|pages| *pages == Pages::All), "{:?}", bench.pages);
}

#[test]
fn a_member_that_comes_next_unexpectedly_is_chosen_with_its_page() {
    let mut bench = Bench::new(without_pause(LeaderPolicy::Last));
    bench.until_defragment();
    bench.facts.members[1].gauges = Some(Ok(idle(1)));
    bench.until(|action| matches!(action, Action::RecordResult(_)));
    assert_eq!(bench.pages.last(), Some(&only(2)));
    // The leader would be next, but it waits for all followers, and the follower for the end of its snapshot.
    bench.until(|action| matches!(action, Action::Observe { after, .. } if !after.is_zero()));
    assert_eq!(bench.pages.last(), Some(&only(2)), "its page says that the snapshot is open");
    bench.facts.members[1].gauges = Some(Err(Unknown::new(UnknownKind::TimedOut, "no answer")));
    bench.step();
    assert_eq!((bench.pages.last(), bench.order.len()), (Some(&Pages::All), 1));
    bench.facts.members[1].gauges = Some(Ok(idle(0)));
    assert_eq!((bench.label(), bench.order), (("succeeded", ""), vec![3, 2, 1]));
}

#[test]
fn hashes_and_a_disarming_are_decided_with_all_pages() {
    for verify in [VerifyPolicy::Hash, VerifyPolicy::None] {
        let mut bench = Bench::new(Policy { verify, ..without_pause(LeaderPolicy::Last) });
        bench.facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: None }]);
        bench.until(|action| matches!(action, Action::Hash { .. } | Action::RecordStep(RunStep::DisarmNoSpace { .. })));
        assert_eq!((bench.order.len(), bench.pages.last()), (3, Some(&Pages::All)), "{verify:?}");
    }
}
