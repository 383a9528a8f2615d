//! What a replica without the lock passes on to the one that holds it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_at_a_follower_is_served_by_the_holder_and_ends_with_it() {
    let (world, first, second) = both(Mode::Enforce).await;
    second.ask("1").await;
    sleep(S * 3).await;
    assert_eq!(first.outcomes().await, [("open", "")], "it is in the holder's journal");
    sleep(S * 600).await;
    assert_eq!(world.etcd.order(), [3, 2, 1]);
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    let reason = Reason::Forwarded { holder: "one".to_owned(), run: RunId(1) };
    assert_eq!(second.runs().await[0].outcome, Some(Outcome::Stopped { reason }));
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_both_replicas_get_is_one_run() {
    let (world, first, second) = both(Mode::Enforce).await;
    first.ask("1").await;
    second.ask("1").await;
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    assert_eq!(second.outcomes().await, [("stopped", "forwarded")]);
    assert_eq!(world.etcd.order(), [3, 2, 1]);
    // Late, from another Alertmanager: the holder cools down, and measures that nothing is left to do.
    second.ask("2").await;
    sleep(S * 60).await;
    assert_eq!(first.outcomes().await, [("succeeded", ""), ("nothing_to_do", "")]);
    assert_eq!(second.outcomes().await, [("stopped", "forwarded"), ("stopped", "forwarded")]);
}

#[tokio::test(start_paused = true)]
async fn a_due_time_that_a_run_in_progress_decides_ends_with_that_run() {
    let (world, first, second) = both_slow(S * 20).await;
    first.ask("1").await;
    world.first_defrag().await;
    let due = AlertKey::of_schedule(first.runs().await[0].accepted_at);
    second.cluster.request(vec![due]).await.expect("taken");
    sleep(S * 5).await;
    assert_eq!(second.outcomes().await, [("open", "")], "what it asks for is not done yet");
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    let reason = Reason::Forwarded { holder: "one".to_owned(), run: RunId(1) };
    assert_eq!(second.runs().await[0].outcome, Some(Outcome::Stopped { reason }));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_holder_dies_is_served_by_the_replica_that_accepted_it() {
    let (world, first, second) = both_slow(S * 20).await;
    second.ask("1").await;
    world.first_defrag().await;
    let journal = first.kill();
    world.net.cut("one");
    // The server continues by itself.
    sleep(S * 30).await;
    world.etcd.set_busy(3, false);
    sleep(S * 900).await;
    assert_eq!(second.outcomes().await, [("succeeded", "")]);
    assert_eq!(world.etcd.order(), [3, 3, 2, 1], "the first was cut off in the middle");
    // The dead one comes back as a follower with a run that it never ended.
    let first = world.start_with("one", journal, Mode::Enforce);
    sleep(S * 600).await;
    assert!(!first.holds());
    assert_eq!(first.outcomes().await, [("stopped", "forwarded")]);
    assert_eq!(world.etcd.order().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_cancelled_is_not_offered_to_the_next_holder() {
    let (world, first, second) = both_slow(S * 20).await;
    first.ask("1").await;
    world.first_defrag().await;
    let cancel = Command::Cancel { reason: String::new() };
    first.app.command("a", "ann".to_owned(), cancel, false).await.expect("cancelled");
    sleep(S).await;
    let journal = first.kill();
    world.net.cut("one");
    sleep(S * 60).await;
    world.etcd.set_busy(3, false);
    let first = world.start_with("one", journal, Mode::Enforce);
    sleep(S * 600).await;
    assert!(!first.holds());
    assert_eq!(first.outcomes().await, [("stopped", "cancelled")]);
    assert!(second.outcomes().await.is_empty());
    assert_eq!(world.etcd.order(), [3]);
}

#[tokio::test(start_paused = true)]
async fn actions_at_a_follower_are_forwarded_to_the_holder_and_its_answer_is_returned() {
    let (world, first, second) = both(Mode::Enforce).await;
    let pause = Command::Pause { reason: "upgrade".to_owned(), lasts: None };
    let carried = second.app.command("a", "ann".to_owned(), pause.clone(), false).await.expect("carried");
    assert!(matches!(carried, CommandOutcome::Forwarded { holder, .. } if holder == "one"));
    assert!(first.cluster.summary().paused.is_some_and(|reason| reason.to_string().contains("paused by ann: upgrade")));
    let resume = Command::Resume { reason: String::new() };
    second.app.command("a", "ann".to_owned(), resume, false).await.expect("carried");
    let run =
        second.app.command("a", "ann".to_owned(), Command::Run { members: Vec::new() }, false).await.expect("carried");
    assert!(matches!(run, CommandOutcome::Forwarded { answer, .. } if answer["run"] == 1));
    let again = second
        .app
        .command("a", "ann".to_owned(), Command::Run { members: Vec::new() }, false)
        .await
        .expect_err("one is enough");
    assert!(matches!(again, CommandError::Peer { status: 409, .. }), "{again}");
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);

    world.net.cut("one");
    let nobody = second.app.command("a", "ann".to_owned(), pause.clone(), false).await.expect_err("out of reach");
    assert!(nobody.to_string().contains("replica one cannot be reached"), "{nobody}");
    let marked = second.app.command("a", "ann".to_owned(), pause, true).await.expect_err("never passed on twice");
    assert!(matches!(marked, CommandError::Refused(Reason::LockHeldElsewhere { .. })), "{marked}");
}

#[tokio::test(start_paused = true)]
async fn an_approval_at_a_follower_reaches_the_run_of_the_holder() {
    let (_world, first, second) = both(Mode::Approve).await;
    second.ask("1").await;
    sleep(S * 20).await;
    assert_eq!(first.waits_for(), Some("awaiting_approval"));
    second.app.approve(RunId(1), "ann".to_owned(), false).await.expect("passed on");
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    assert_eq!(second.outcomes().await, [("stopped", "forwarded")]);
}

#[tokio::test(start_paused = true)]
async fn an_alert_that_is_resolved_at_a_follower_is_cancelled_at_the_holder() {
    let (_world, first, second) = both(Mode::Approve).await;
    second.ask("1").await;
    sleep(S * 20).await;
    second.cluster.resolve(key("1")).await.expect("taken");
    sleep(S * 20).await;
    assert_eq!(first.outcomes().await, [("stopped", "resolved")]);
    assert_eq!(second.outcomes().await, [("stopped", "resolved")]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_withdrawn_at_the_holder_is_not_requested_anew_by_a_follower() {
    let (_world, first, second) = both(Mode::Approve).await;
    second.ask("1").await;
    sleep(S * 20).await;
    first.cluster.resolve(key("1")).await.expect("taken");
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("stopped", "resolved")]);
    assert_eq!(second.outcomes().await, [("stopped", "forwarded")]);
    // Alertmanager itself says that it fires again.
    first.ask("1").await;
    sleep(S * 20).await;
    assert_eq!(first.outcomes().await, [("stopped", "resolved"), ("open", "")]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_keeps_its_request_while_the_holder_tries_again() {
    let fake = etcd();
    fake.set_busy(3, true);
    let world = World::new(fake);
    let (first, second) = world.start_both(Mode::Enforce).await;
    second.ask("1").await;
    while first.outcomes().await != [("refused", "defrag_in_flight")] {
        sleep(S).await;
    }
    sleep(S * 30).await;
    assert_eq!(first.outcomes().await, [("refused", "defrag_in_flight")], "the next run is due after a minute");
    assert_eq!(second.outcomes().await, [("open", "")]);
    world.etcd.set_busy(3, false);
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("refused", "defrag_in_flight"), ("succeeded", "")]);
    assert_eq!(second.outcomes().await, [("stopped", "forwarded")]);
    assert_eq!(world.etcd.order(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_lost_its_journal_is_offered_the_request_anew() {
    let (world, first, second) = both(Mode::Approve).await;
    second.ask("1").await;
    sleep(S * 20).await;
    assert_eq!(first.outcomes().await, [("open", "")]);
    first.kill();
    world.net.cut("one");
    // It resumes before its lease ends, and acquires the lock again.
    let first = world.start_with("one", shared(1), Mode::Enforce);
    sleep(S * 900).await;
    let (one, two) = (first.outcomes().await, second.outcomes().await);
    assert!(one.contains(&("succeeded", "")) || two.contains(&("succeeded", "")), "{one:?} {two:?}");
    assert!(!one.contains(&("open", "")) && !two.contains(&("open", "")), "{one:?} {two:?}");
    assert_eq!(world.etcd.order(), [3, 2, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_holder_ignores_stands_and_says_so() {
    let (_world, first, second) = both(Mode::Enforce).await;
    first.cluster.retire();
    second.ask("1").await;
    sleep(S * 600).await;
    assert_eq!(second.outcomes().await, [("open", "")]);
    assert_eq!(second.waits_for(), Some("not_forwarded"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_hold_the_lock_takes_nothing_that_another_passes_on() {
    let (_world, _first, second) = both(Mode::Enforce).await;
    let labels = [("defragd_cluster".to_owned(), "a".to_owned())].into();
    let alert = crate::core::alert::Alert {
        status: crate::core::alert::AlertStatus::Firing,
        labels,
        annotations: crate::core::alert::Labels::new(),
        starts_at: "t".to_owned(),
        fingerprint: "1".to_owned(),
    };
    let notification = Notification { alerts: vec![alert], forwarded: true, ..Notification::default() };
    let answers = second.app.notify(notification).await.expect("decided");
    assert_eq!(answers[0].decision.labels(), ("ignored", "lock_held_elsewhere"));
    assert!(second.runs().await.is_empty());
}

/// Its journal may be used again weeks later, or never.
#[tokio::test(start_paused = true)]
async fn a_request_of_a_follower_that_is_gone_is_served_by_the_holder_and_ends_when_its_journal_is_used_again() {
    let world = World::new(etcd());
    let (first, second) = world.start_both(Mode::Enforce).await;
    second.ask("1").await;
    sleep(S * 3).await;
    assert_eq!(first.outcomes().await, [("open", "")], "the holder has it");
    let journal = second.kill();
    sleep(S * 600).await;
    assert_eq!(first.outcomes().await, [("succeeded", "")]);
    let second = world.start_with("two", journal, Mode::Enforce);
    assert_eq!(second.outcomes().await, [("open", "")]);
    sleep(S * 60).await;
    assert_eq!(second.outcomes().await, [("stopped", "forwarded")]);
    assert_eq!(world.etcd.order(), [3, 2, 1], "nothing is done twice");
}

#[tokio::test(start_paused = true)]
async fn a_forwarded_request_whose_holder_is_gone_too_is_measured_again_before_anything_is_done() {
    let world = World::new(etcd());
    let (first, second) = world.start_both(Mode::Enforce).await;
    second.ask("1").await;
    sleep(S * 3).await;
    let journal = second.kill();
    sleep(S * 600).await;
    first.kill();
    // With another kind of lock, it knows nothing of the first one.
    let other = World { etcd: Arc::clone(&world.etcd), ..World::new(etcd()) };
    let second = other.start_with("two", journal, Mode::Enforce);
    sleep(S * 600).await;
    assert_eq!(second.outcomes().await, [("nothing_to_do", "")]);
    assert_eq!(world.etcd.order(), [3, 2, 1]);
}
