//! The limits of the HTTP side, for the documentation: `docs/reference/limits.md` is made of them.

use bytesize::ByteSize;

use super::{
    auth::MIN_TOKEN_BYTES,
    body::{BODY_LIMIT, LONGEST_BYTES, MAX_BODY_BYTES, MAX_LONG_BODIES, SMALL_BYTES},
    connections::{MAX_CONNECTIONS, MAX_IDLE, TO_BEGIN},
    head::{HEADER_OVERHEAD_BYTES, MAX_HEADER_BYTES, MAX_HEADERS},
    orders::{MAX_MEMBERS, MAX_ORDER_BYTES, MAX_TEXT_CHARS},
    scrape::{MAX_NAME_BYTES, MAX_TARGETS},
    server::MAX_STREAMS,
    sessions::{LASTS, MAX_SESSIONS, WRONG_TRIES},
    site, web,
};
use crate::core::time::Time;

/// A limit, and what happens beyond it.
pub struct Limit {
    pub what: String,
    /// With its unit.
    pub most: String,
    pub beyond: &'static str,
}

/// All of them, in the order in which a request meets them.
pub fn limits() -> Vec<Limit> {
    let limit = |what: &str, most: String, beyond| Limit { what: what.to_owned(), most, beyond };
    let size = |bytes: usize| ByteSize(bytes as u64).to_string();
    let time = |time| Time::from(time).to_string();
    let headers =
        format!("Size of a request's headers: names, values, and {HEADER_OVERHEAD_BYTES} bytes for each header");
    let connections =
        "the one that has been idle or sending for the longest is closed; if all wait for answers, the new one";
    let tries = format!("{}, then 1 every {}", WRONG_TRIES.burst, time(WRONG_TRIES.interval));
    vec![
        limit("Connections", MAX_CONNECTIONS.to_string(), connections),
        limit("Time for the TLS handshake and the first request's headers", time(TO_BEGIN), "closed"),
        limit("Time that a connection may be idle, or send the headers of a further request", time(MAX_IDLE), "closed"),
        limit("Streams of an HTTP/2 connection", MAX_STREAMS.to_string(), "the stream is refused"),
        limit("Headers of a request", MAX_HEADERS.to_string(), "431"),
        limit(&headers, size(MAX_HEADER_BYTES as usize), "431"),
        limit("Body of a notification", size(MAX_BODY_BYTES), "413; before it arrives, if its length is announced"),
        limit("Body of an action", size(MAX_ORDER_BYTES), "413, likewise"),
        limit("Time for a body", time(BODY_LIMIT), "408"),
        limit(&format!("Bodies above {} at once", size(SMALL_BYTES)), MAX_LONG_BODIES.to_string(), "others wait"),
        limit(&format!("Bodies above {} at once", size(LONGEST_BYTES)), "1".to_owned(), "others wait"),
        limit("Passwords that are checked at once", web::MAX_CHECKS.to_string(), "others wait"),
        limit("Time to wait for a password's check to begin", time(web::MAX_WAIT), "503"),
        limit("Wrong tokens at `/login`", tries, "429"),
        limit("Length of a session", time(LASTS), "it ends"),
        limit("Sessions of the status page", MAX_SESSIONS.to_string(), "the oldest one ends"),
        limit("Bytes of a token, at least", MIN_TOKEN_BYTES.to_string(), "a shorter one is refused at start"),
        limit("Pages that receive events", site::MAX_STREAMS.to_string(), "503"),
        limit("Characters of `by` and of `reason`", MAX_TEXT_CHARS.to_string(), "400"),
        limit("Members of a requested run", MAX_MEMBERS.to_string(), "400"),
        limit("Targets of a probe", MAX_TARGETS.to_string(), "400"),
        limit("Bytes of a probe's `module` and `cluster`", MAX_NAME_BYTES.to_string(), "400"),
    ]
}
