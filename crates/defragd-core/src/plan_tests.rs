use super::*;
use crate::fixture;

fn order(plan: &Plan) -> Vec<&str> {
    plan.pending().map(|(step, _)| step.member.as_str()).collect()
}

#[test]
fn followers_come_first_backwards_from_the_leader_and_the_leader_last() {
    for (leader, expected) in [
        (1, ["etcd-4", "etcd-3", "etcd-2", "etcd-1"]),
        (2, ["etcd-1", "etcd-4", "etcd-3", "etcd-2"]),
        (4, ["etcd-3", "etcd-2", "etcd-1", "etcd-4"]),
    ] {
        let mut facts = fixture::cluster(4);
        for index in 0..4 {
            fixture::status_mut(&mut facts, index).leader = Some(MemberId(leader));
        }
        let plan = Plan::new(&facts, &Policy::default(), &PlanHistory::default());
        assert_eq!(order(&plan), expected);
        assert_eq!(plan.blocked, None);
    }
}

#[test]
fn clients_that_go_on_to_the_next_member_of_their_list_never_all_meet_at_one_that_stalls() {
    for (size, leader) in (3..=7).flat_map(|size| (1..=size).map(move |leader| (size, leader))) {
        let mut facts = fixture::cluster(size);
        for index in 0..facts.members.len() {
            fixture::status_mut(&mut facts, index).leader = Some(MemberId(leader));
        }
        let plan = Plan::new(&facts, &Policy::default(), &PlanHistory::default());
        let mut clients: Vec<u64> = (1..=size).collect();
        for (step, _) in plan.pending() {
            let stalls = step.member_id.0;
            assert!(clients.iter().any(|at| *at != stalls), "all at {stalls} of {size}, {leader} leads");
            clients.iter_mut().filter(|at| **at == stalls).for_each(|at| *at = *at % size + 1);
        }
    }
}

#[test]
fn who_is_left_alone_is_named_in_order() {
    let past = PlanHistory { done: (1..=3).map(MemberId).collect(), ..PlanHistory::default() };
    let plan = Plan::new(&fixture::cluster(4), &Policy::default(), &past);
    let names: Vec<_> = plan.steps.iter().map(|step| step.member.as_str()).collect();
    assert_eq!(names, ["etcd-4", "etcd-1", "etcd-2", "etcd-3"]);
}

#[test]
fn a_learner_is_never_chosen() {
    let mut facts = fixture::cluster(4);
    facts.members[3].member.is_learner = true;
    let plan = Plan::new(&facts, &Policy::default(), &PlanHistory::default());
    assert_eq!(order(&plan), ["etcd-3", "etcd-2", "etcd-1"]);
    assert_eq!(plan.steps[3].decision, Decision::Skip { reason: Reason::Learner });
}

#[test]
fn a_leader_that_an_operator_names_before_others_that_need_it_is_warned_of() {
    let warned = |requested: &[&str], facts: &ClusterFacts| {
        let requested = requested.iter().map(|name| (*name).to_owned()).collect();
        let plan = Plan::new(facts, &Policy::default(), &PlanHistory { requested, ..PlanHistory::default() });
        assert_eq!((order(&plan).last(), plan.blocked.clone()), (Some(&"etcd-1"), None));
        plan.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut facts = fixture::cluster(3);
    for index in 0..3 {
        fixture::status_mut(&mut facts, index).leader = Some(MemberId(1));
    }
    let named = "member etcd-1 is the leader, and is defragmented before etcd-2, etcd-3, which need it, too";
    assert_eq!(warned(&["etcd-1"], &facts), [named]);
    assert_eq!(warned(&[], &facts).len() + warned(&["etcd-1", "etcd-2", "etcd-3"], &facts).len(), 0);
    for index in 1..3 {
        fixture::status_mut(&mut facts, index).db_size = bytesize::ByteSize::mib(110);
    }
    assert_eq!(warned(&["etcd-1"], &facts).len(), 0, "no other one needs it");
}

#[test]
fn members_that_were_dealt_with_are_not_chosen_again() {
    let past = PlanHistory { done: BTreeSet::from([MemberId(2), MemberId(1)]), ..PlanHistory::default() };
    let plan = Plan::new(&fixture::cluster(3), &Policy::default(), &past);
    assert_eq!(order(&plan), ["etcd-3"]);
}
