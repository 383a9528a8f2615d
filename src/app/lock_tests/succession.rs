//! What the next holder of the lock knows of the last one.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pause_and_what_was_done_go_to_the_next_holder_and_back() {
    let (world, first, second) = both(Mode::Enforce).await;
    first.ask("1").await;
    sleep(S * 300).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    let pause = Command::Pause { reason: "upgrade".to_owned(), lasts: None };
    first.app.command("a", "ann".to_owned(), pause, false).await.expect("carried");
    // Without time for anything but the note.
    sleep(S / 10).await;
    let journal = first.kill();
    world.net.cut("one");
    second.ask("2").await;
    sleep(S * 600).await;
    assert!(second.holds());
    assert!(
        second.cluster.summary().paused.is_some_and(|reason| reason.to_string().contains("paused by ann: upgrade"))
    );
    assert!(second.cluster.summary().cooldown_until.is_some(), "the other's run counts");
    assert_eq!((second.outcomes().await, second.waits_for()), (vec![("open", "")], Some("paused")));
    assert_eq!(world.etcd.order().len(), 3);

    // The second one resumes and dies; the first one returns with its own, older pause.
    let resume = Command::Resume { reason: "done".to_owned() };
    second.app.command("a", "ann".to_owned(), resume, false).await.expect("carried");
    sleep(S / 10).await;
    second.kill();
    let first = world.start_with("one", journal, Mode::Enforce);
    sleep(S * 120).await;
    assert!(first.holds());
    assert_eq!(first.cluster.summary().paused, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_what_the_last_holder_left_cannot_be_read() {
    let world = World::new(etcd());
    world.locks.write_note("{}");
    let first = world.start("one");
    first.ask("1").await;
    sleep(S * 300).await;
    assert!(first.holds());
    assert_eq!(first.waits_for(), Some("lock_unknown"));
    assert_eq!(world.locks.note().as_deref(), Some("{}"), "and it is not written over");
    world.locks.write_note(&crate::core::note::SuccessionNote::default().write("nobody", Term(0), None, None));
    sleep(S * 300).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_note_that_cannot_be_left_keeps_nothing_up_and_is_left_later() {
    let world = World::new(etcd());
    let first = world.start("one");
    sleep(S * 40).await;
    world.locks.fill(true);
    let pause = Command::Pause { reason: "upgrade".to_owned(), lasts: None };
    first.app.command("a", "ann".to_owned(), pause, false).await.expect("the pause holds here in any case");
    sleep(S * 120).await;
    assert!(first.holds(), "and the lock is renewed");
    assert!(!world.locks.note().is_some_and(|note| note.contains("upgrade")));
    world.locks.fill(false);
    sleep(S * 10).await;
    assert!(world.locks.note().is_some_and(|note| note.contains("upgrade")));
}

/// The tests begin at midnight.
fn due_at_five_past() -> Timetable {
    Timetable(vec![Line::parse("5 0 * * *", jiff::tz::TimeZone::UTC).expect("a line")])
}

#[tokio::test(start_paused = true)]
async fn the_holder_alone_requests_what_is_due_and_its_successor_does_not_repeat_it() {
    let world = World { schedule: due_at_five_past(), ..World::new(etcd()) };
    let (first, second) = world.start_both(Mode::Enforce).await;
    sleep(S * 400).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    assert_eq!(first.runs().await[0].request.trigger, Trigger::Schedule);
    first.cluster.release_lock().await;
    first.kill();
    sleep(S * 600).await;
    assert!(second.holds());
    assert_eq!(second.outcomes().await, [], "its note says that 00:05 was served");
    assert_eq!(world.etcd.order(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_was_due_while_no_replica_held_the_lock_is_requested_by_the_successor() {
    let world = World { schedule: due_at_five_past(), ..World::new(etcd()) };
    let (first, second) = world.start_both(Mode::Enforce).await;
    sleep(S * 255).await;
    first.kill();
    sleep(S * 600).await;
    assert_eq!(second.outcomes().await, [("succeeded", "")]);
    assert_eq!(second.runs().await[0].request.trigger, Trigger::Schedule);
    assert_eq!(world.etcd.order(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_recorded_days_ahead_hides_from_the_successor_nothing_that_is_due() {
    let world = World { schedule: due_at_five_past(), ..World::new(etcd()) };
    let first = world.start_with("one", shared_recorded_at(1, "2026-11-26T00:00:00Z"), Mode::Enforce);
    sleep(S).await;
    let second = world.start("two");
    first.ask("1").await;
    sleep(S * 254).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    first.kill();
    sleep(S * 600).await;
    assert_eq!(second.runs().await.iter().map(|run| run.request.trigger).collect::<Vec<_>>(), [Trigger::Schedule]);
}

#[tokio::test(start_paused = true)]
async fn a_successor_with_an_alert_of_its_own_continues_what_an_operator_requested() {
    for (members, order) in [(Vec::new(), [3, 3, 2, 1].as_slice()), (vec!["etcd-2".to_owned()], &[2, 2])] {
        let (world, first, second) = both(Mode::Approve).await;
        world.etcd.take(S * 20);
        let run = Command::Run { members: members.clone() };
        first.app.command("a", "ann".to_owned(), run, false).await.expect("taken");
        world.first_defrag().await;
        second.ask("1").await;
        sleep(S * 3).await;
        first.kill();
        world.net.cut("one");
        // The server continues by itself.
        sleep(S * 30).await;
        (1..=3).for_each(|member| world.etcd.set_busy(member, false));
        sleep(S * 900).await;
        assert_eq!(world.etcd.order(), order, "the first was cut off in the middle");
        let run = &second.runs().await[0];
        assert_eq!((run.request.trigger, &run.request.members), (Trigger::Manual, &members));
        assert_eq!(run.approved.as_ref().map(|approval| approval.by.as_str()), Some("ann"));
        if members.is_empty() {
            assert_eq!(second.outcomes().await, [("succeeded", "")]);
        } else {
            assert_eq!(second.outcomes().await, [("succeeded", ""), ("open", "")]);
            assert_eq!(second.waits_for(), Some("awaiting_approval"), "nobody has approved what else the alert wants");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_wanted_is_known_to_the_successor_although_nothing_had_begun() {
    for mode in [Mode::Enforce, Mode::Approve] {
        let world = World::new(etcd());
        let first = world.start_with("one", shared(1), mode);
        sleep(S * 5).await;
        let second = world.start_with("two", shared(1), mode);
        if mode == Mode::Approve {
            first.ask("1").await;
            first.app.approve(RunId(1), "ann".to_owned(), false).await.expect("approved");
        } else {
            let run = Command::Run { members: Vec::new() };
            first.app.command("a", "ann".to_owned(), run, false).await.expect("taken");
        }
        // It waits until all that the last holder sent has arrived.
        sleep(S).await;
        assert_eq!(world.etcd.order(), [0; 0]);
        first.kill();
        world.net.cut("one");
        sleep(S * 600).await;
        let approved_by = |run: &RunView| run.approved.as_ref().map(|approval| approval.by.clone());
        assert_eq!(second.runs().await.iter().map(approved_by).collect::<Vec<_>>(), [Some("ann".to_owned())]);
        assert_eq!((second.outcomes().await, world.etcd.order()), (vec![("succeeded", "")], vec![3, 2, 1]));
    }
}
