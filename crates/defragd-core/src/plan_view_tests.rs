use super::*;
use crate::{
    cluster::{Alarm, Gauges},
    fixture,
    gate::{GateKind, Moment, OnFailure},
    history::{Request, RunId},
    ledger::Ledger,
    order::{Order, OrderRecord},
    window::{Schedule, Window},
};

fn inputs<'a>(facts: &'a ClusterFacts, policy: &'a Policy, ledger: &'a Ledger) -> PlanInputs<'a> {
    PlanInputs {
        cluster: "a",
        at: Timestamp::UNIX_EPOCH,
        now: Timestamp::UNIX_EPOCH + Duration::from_secs(3),
        facts,
        policy,
        ledger,
        run: None,
        as_manual: false,
        gates: Vec::new(),
        others: Vec::new(),
        unknown_holds: Vec::new(),
    }
}

/// The members to defragment.
fn order(view: &PlanView) -> Vec<&str> {
    let chosen = view.steps.iter().filter(|step| matches!(step.planned.decision, Decision::Defragment { .. }));
    chosen.map(|step| step.planned.member.as_str()).collect()
}

#[test]
fn everything_that_holds_a_run_back_is_listed_not_only_the_first_cause() {
    let mut facts = fixture::cluster(3);
    facts.members[1].gauges = Some(Ok(Gauges { open_snapshots: Some(1), ..Gauges::default() }));
    facts.members[2].member.is_learner = true;
    let pause = Order::Pause { by: "anna".to_owned(), reason: "release".to_owned(), until: None };
    let pause = OrderRecord { cluster: "a".to_owned(), at: Timestamp::UNIX_EPOCH, order: pause };
    let ledger = Ledger { orders: vec![pause], ..Ledger::default() };
    let policy = Policy::default();
    let gate = GateResult {
        gate: "backup".to_owned(),
        kind: GateKind::Http,
        moment: Moment::Before,
        passed: false,
        on_failure: OnFailure::Stop,
        detail: "status 503".to_owned(),
        evidence: serde_json::Map::new(),
        baseline: None,
        took: Duration::ZERO,
    };
    let lock = Reason::LockHeldElsewhere { holder: "two".to_owned() };
    let view = PlanView::new(PlanInputs { gates: vec![gate], others: vec![lock], ..inputs(&facts, &policy, &ledger) });
    let holds: Vec<_> = view.holds.iter().map(|hold| hold.reason.label()).collect();
    let expected = ["observe_mode", "paused", "lock_held_elsewhere", "no_quorum_slack", "snapshot_open", "gate_failed"];
    assert_eq!(holds, expected);
    // What a server sends is what the command line shows.
    let json = serde_json::to_string(&view).expect("JSON");
    assert_eq!(serde_json::from_str::<PlanView>(&json).expect("a plan"), view);
    assert!(json.contains("\"age_seconds\":3.0"), "{json}");
}

#[test]
fn the_plan_of_a_run_that_waits_is_about_the_members_that_its_operator_named() {
    let facts = fixture::cluster(3);
    let (policy, trigger) = (Policy::default(), Trigger::Manual);
    let request = Request { cluster: "a".to_owned(), trigger, alerts: Vec::new(), members: vec!["etcd-2".to_owned()] };
    let run = RunView::accepted(RunId(1), Timestamp::UNIX_EPOCH, request);
    let ledger = Ledger { runs: vec![run.clone()], ..Ledger::default() };
    let view = PlanView::new(PlanInputs { run: Some(&run), ..inputs(&facts, &policy, &ledger) });
    assert_eq!(order(&view), ["etcd-2"]);
}

#[test]
fn totals_the_leader_and_the_versions_are_named() {
    let mut facts = fixture::cluster(3);
    for index in 0..3 {
        fixture::status_mut(&mut facts, index).version = "3.5.16".to_owned();
    }
    let policy = Policy { mode: crate::policy::Mode::Enforce, ..Policy::default() };
    let view = PlanView::new(inputs(&facts, &policy, &Ledger::default()));
    assert!(!view.is_held(), "{:?}", view.holds);
    assert_eq!((view.totals.members, view.totals.reclaimable), (3, ByteSize::mib(2700)));
    assert_eq!(view.totals.run, view.totals.unavailable + 3 * policy.pause_between_members);
    assert_eq!(order(&view), ["etcd-3", "etcd-2", "etcd-1"]);
    assert!(view.leader.starts_with("etcd-1 is the leader and is defragmented last"), "{}", view.leader);
    assert!(
        view.warnings[0].contains("etcd 3.5.16 (etcd-1, etcd-2, etcd-3): a snapshot applied"),
        "{:?}",
        view.warnings
    );
    let transfers = Policy { leader: crate::policy::LeaderPolicy::LastAfterTransfer, ..policy };
    let view = PlanView::new(inputs(&facts, &transfers, &Ledger::default()));
    assert!(view.leader.contains("transfers leadership to another member"), "{}", view.leader);
}

#[test]
fn a_plan_says_beforehand_that_nospace_will_stay_armed() {
    let warned = |in_use: u64, alarm: bool| {
        let mut facts = fixture::cluster(3);
        for index in 0..3 {
            let status = fixture::status_mut(&mut facts, index);
            status.quota = Some(ByteSize::mib(32));
            (status.db_size, status.db_size_in_use) = (ByteSize::mib(33), ByteSize::mib(in_use));
        }
        facts.alarms = Ok(Vec::from_iter(alarm.then_some(Alarm { kind: AlarmKind::NoSpace, member: None })));
        let (policy, ledger) = (Policy::default(), Ledger::default());
        let warnings = PlanView::new(inputs(&facts, &policy, &ledger)).warnings;
        warnings.into_iter().find(|warning| warning.contains("stay armed"))
    };
    let warning = warned(30, true).expect("30 of 32 MiB cannot be freed");
    assert!(warning.contains("etcd-1 has 94 % of its quota in use, and its file must be below 90 %"), "{warning}");
    assert_eq!((warned(4, true), warned(30, false)), (None, None));
}

#[test]
fn in_mode_observe_a_plan_shows_that_no_window_is_open() {
    let shut = Window {
        days: Vec::new(),
        start: jiff::civil::time(3, 0, 0, 0),
        end: jiff::civil::time(4, 0, 0, 0),
        timezone: jiff::tz::TimeZone::UTC,
    };
    for mode in [Mode::Observe, Mode::Enforce] {
        let policy = Policy { mode, windows: Schedule(vec![shut.clone()]), ..Policy::default() };
        let (facts, ledger) = (fixture::cluster(3), Ledger::default());
        for as_manual in [false, true] {
            let view = PlanView::new(PlanInputs { as_manual, ..inputs(&facts, &policy, &ledger) });
            let holds: Vec<_> = view.holds.iter().map(|hold| hold.reason.label()).collect();
            assert_eq!(holds.contains(&"observe_mode"), mode == Mode::Observe);
            assert!(holds.contains(&"outside_window"), "{mode:?}: {holds:?}");
        }
    }
}

#[test]
fn under_nospace_a_plan_says_why_it_defragments_members_in_which_little_seems_free() {
    let warnings = |in_use: u64| {
        let mut facts = fixture::cluster(3);
        for index in 0..3 {
            let status = fixture::status_mut(&mut facts, index);
            status.quota = Some(ByteSize::mib(32));
            (status.db_size, status.db_size_in_use) =
                (ByteSize::mib(33), ByteSize::mib(if index == 1 { in_use } else { 1 }));
        }
        facts.alarms = Ok(vec![Alarm { kind: AlarmKind::NoSpace, member: None }]);
        let (policy, ledger) = (Policy::default(), Ledger::default());
        PlanView::new(inputs(&facts, &policy, &ledger)).warnings.join("\n")
    };
    let text = "etcd-2 is defragmented once although little seems free";
    assert!(warnings(33).contains(text), "{}", warnings(33));
    assert!(!warnings(1).contains("seems free"), "{}", warnings(1));
}
