//! `/events`: notifications of changes, and the runs in progress, as server-sent events.
//!
//! An event contains everything about the runs in progress, as JSON; for the rest of the page, the script fetches the
//! page again. The number of streams is limited. Each ends after a while (browsers reconnect by themselves), sends at
//! least a heartbeat every few seconds so that a dead one is noticed, and is cut off if its client does not read. All
//! end when the server does.

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
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::debug;

use super::layout::decorate;
use crate::{
    adapters::http::{
        connections::ConnectionSlot,
        server::Stopped,
        site::{MAX_STREAMS, Site, problem},
    },
    ports::{overview::Live, service::Service},
};

/// Proxies close connections that are silent for longer than about half a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// More frequent changes are reported together.
const NOT_MORE_OFTEN: Duration = Duration::from_millis(500);
/// A client that takes longer to read a few bytes is gone, or wants to block us.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// The session, password or certificate may have expired by then.
const LASTS: Duration = Duration::from_mins(15);
/// How long a browser waits before it reconnects.
const RETRY_MILLISECONDS: u64 = 3_000;

#[derive(Serialize)]
struct StreamEvent {
    version: u64,
    runs: Vec<Live>,
}

pub(super) async fn stream<S: Service>(Extract(site): Extract<Arc<Site<S>>>, parts: Parts) -> Response {
    let Ok(place) = Arc::clone(&site.streams).try_acquire_owned() else {
        let what = format!("{MAX_STREAMS} pages already receive events");
        return ([(header::RETRY_AFTER, "30")], problem(StatusCode::SERVICE_UNAVAILABLE, &what)).into_response();
    };
    let stopped = parts.extensions.get::<Stopped>().cloned();
    let slot = parts.extensions.get::<Arc<ConnectionSlot>>().cloned();
    let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
    // A separate task, because a body is not polled while its client does not read. It ends with the client, with the
    // server, or after a while.
    tokio::spawn(async move {
        let _place = place;
        // Counts as busy, so that the connection is not evicted.
        let _busy = slot.as_ref().map(ConnectionSlot::begin);
        let late = stream_changes(&site, &sender, stopped).await.is_err();
        if let Some(slot) = slot.filter(|_| late) {
            debug!("a client does not read its events; closing the connection");
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

/// The client does not read.
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
            // All of them are cancel-safe: a change that is not seen now is seen in the next iteration.
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
    // An error means that the client has gone; the caller notices that by itself.
    timeout(WRITE_LIMIT, sender.send(text.into())).await.map(drop).map_err(|_| ReaderStalled)
}

fn event<S: Service>(service: &Arc<S>, version: u64) -> String {
    let runs = service.live();
    // JSON has no line breaks. It fails only for maps with keys that are not strings, and there are none.
    let data = serde_json::to_string(&StreamEvent { version, runs }).unwrap_or_default();
    format!("event: change\nid: {version}\ndata: {data}\n\n")
}

/// Resolves when the server ends; never without a signal for it.
async fn ended(stopped: Option<Stopped>) {
    match stopped {
        // An error: the sender has been dropped, which is the signal.
        Some(Stopped(mut stopped)) => drop(watch::Receiver::changed(&mut stopped).await),
        None => std::future::pending().await,
    }
}
