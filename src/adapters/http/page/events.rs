//! `/events`: that something changed, and the runs under way, as server-sent events.
//!
//! An event has everything about the runs under way, as JSON; the rest of a page, its script fetches. There are few
//! streams, each ends after a while (browsers come again by themselves), says something at least every few seconds so
//! that a dead one is noticed, and is cut off if its reader does not read. All end when the server does.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::State as Extract,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::debug;

use super::layout::decorate;
use crate::{
    adapters::http::{
        connections::ConnectionSlot,
        routes::{Site, problem},
        server::Stopped,
    },
    ports::{overview::Live, service::Service},
};

/// Well below the number of connections, which scrapers and Alertmanagers need, too.
const MAX_STREAMS: usize = 64;
/// Proxies close what is silent for longer than half a minute or so.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What changes more often is told together.
const NOT_MORE_OFTEN: Duration = Duration::from_millis(500);
/// A reader that takes longer for a few bytes is gone, or wants us to wait.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// A session, a password or a certificate may have ended meanwhile.
const LASTS: Duration = Duration::from_mins(15);
/// How long a browser waits before it comes again.
const RETRY_MILLISECONDS: u64 = 3_000;

pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_STREAMS)))
    }
}

#[derive(Serialize)]
struct StreamEvent {
    version: u64,
    runs: Vec<Live>,
}

pub(super) async fn stream<S: Service>(Extract(site): Extract<Arc<Site<S>>>, parts: Parts) -> Response {
    let Ok(place) = Arc::clone(&site.page.streams.0).try_acquire_owned() else {
        let what = format!("{MAX_STREAMS} pages are followed already");
        return ([(header::RETRY_AFTER, "30")], problem(StatusCode::SERVICE_UNAVAILABLE, &what)).into_response();
    };
    let stopped = parts.extensions.get::<Stopped>().cloned();
    let slot = parts.extensions.get::<Arc<ConnectionSlot>>().cloned();
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    // A task of its own, because a body that nobody reads is not polled either. It ends with the reader, with the
    // server, or after a while.
    tokio::spawn(async move {
        let _place = place;
        // Not idle, for whoever makes room for others.
        let _busy = slot.as_ref().map(ConnectionSlot::begin);
        let late = stream_changes(&site, &sender, stopped).await.is_err();
        if let Some(slot) = slot.filter(|_| late) {
            debug!("a page does not read its events; cutting it off");
            slot.hang_up();
        }
    });
    let body = Body::from_stream(stream::poll_fn(move |context| {
        receiver.poll_recv(context).map(|event| event.map(Ok::<_, std::convert::Infallible>))
    }));
    let head =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::HeaderName::from_static("x-accel-buffering"), "no")];
    let mut response = (head, body).into_response();
    decorate(&mut response);
    response
}

/// A reader that does not read.
struct ReaderStalled;

async fn stream_changes<S: Service>(
    site: &Site<S>,
    sender: &mpsc::Sender<Bytes>,
    stopped: Option<Stopped>,
) -> Result<(), ReaderStalled> {
    let mut changes = site.service.changes();
    let end = Instant::now() + LASTS;
    let ends = ended(stopped);
    tokio::pin!(ends);
    send(sender, format!("retry: {RETRY_MILLISECONDS}\n\n")).await?;
    loop {
        let version = *changes.borrow_and_update();
        send(sender, event(&site.service, version)).await?;
        loop {
            // Cancel-safe, each of them: a change that is not seen now is seen the next time.
            tokio::select! {
                () = sleep(HEARTBEAT) => send(sender, ": still here\n\n".to_owned()).await?,
                changed = changes.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
                () = sender.closed() => return Ok(()),
                () = &mut ends => return Ok(()),
                () = sleep_until(end) => return Ok(()),
            }
        }
        tokio::select! {
            () = sleep(NOT_MORE_OFTEN) => {}
            () = &mut ends => return Ok(()),
        }
    }
}

async fn send(sender: &mpsc::Sender<Bytes>, text: String) -> Result<(), ReaderStalled> {
    // An error means that the reader has gone, which the next look at it tells.
    timeout(WRITE_LIMIT, sender.send(text.into())).await.map(drop).map_err(|_| ReaderStalled)
}

fn event<S: Service>(service: &Arc<S>, version: u64) -> String {
    let runs = service.views().into_iter().filter_map(|view| view.live).collect();
    // JSON is one line. It fails for maps whose keys are no text, which there are none of.
    let data = serde_json::to_string(&StreamEvent { version, runs }).unwrap_or_default();
    format!("event: change\nid: {version}\ndata: {data}\n\n")
}

/// When the server ends; never, where nobody says so.
async fn ended(stopped: Option<Stopped>) {
    match stopped {
        // An error: the sender is gone, which is how it says so.
        Some(Stopped(mut stopped)) => drop(watch::Receiver::changed(&mut stopped).await),
        None => std::future::pending().await,
    }
}
