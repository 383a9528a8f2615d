//! The stream of changes: how many readers there may be, and which of them lose their place.

use std::time::Duration;

use axum::{body::Body, http::Request, response::Response};
use http_body_util::BodyExt;
use testkit::until;
use tower::util::ServiceExt;

use super::{Site, open};
use crate::ports::service::{Command, Service};

async fn events(site: &Site) -> Response {
    let request = Request::get("/events").body(Body::empty()).expect("a request");
    site.router.clone().oneshot(request).await.expect("an answer")
}

#[tokio::test]
async fn events_tell_of_changes_their_number_is_bounded_and_a_gone_reader_makes_room() {
    let site = open();
    let ask = || events(&site);
    let mut first = ask().await;
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let mut heard = String::new();
    while !heard.contains("\"runs\":[]") {
        let frame = first.body_mut().frame().await.expect("more").expect("data");
        heard.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
    }
    let pause = Command::Pause { reason: "x".to_owned(), lasts: None };
    site.app.command("a", "ann".to_owned(), pause, false).await.expect("paused");
    let next = first.body_mut().frame().await.expect("more").expect("data");
    assert!(next.data_ref().is_some_and(|data| data.starts_with(b"event: change")), "a change is reported");
    let others: Vec<_> = futures_util::future::join_all((0..63).map(|_| ask())).await;
    assert!(others.iter().all(|answer| answer.status() == 200));
    assert_eq!(ask().await.status(), 503, "the 65th");
    drop(first);
    let room = until("room again", Duration::from_mins(1), || async {
        let answer = ask().await;
        anyhow::ensure!(answer.status() == 200, "it answers {}", answer.status());
        Ok(())
    });
    room.await.expect("a gone reader makes room");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_loses_its_place() {
    let site = open();
    let ask = || events(&site);
    let lazy: Vec<_> = futures_util::future::join_all((0..64).map(|_| ask())).await;
    assert_eq!(ask().await.status(), 503);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(ask().await.status(), 200, "no client read, so all were cut off");
    drop(lazy);
}
