//! Bounds what clients can write to the log.
//!
//! A client without credentials causes lines: ours about its requests, and those of the libraries that read what it
//! sends. Of each kind, that is of each place in the code, a few lines a minute are written for each peer and some more
//! for all peers together. The rest is counted, and each minute ends with a line that has the count. What is logged
//! about runs, members and decisions is never suppressed.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tracing::{
    Event, Id, Level, Subscriber, error,
    field::{Field, Visit},
    info,
    span::Attributes,
    warn,
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, Scope},
};

/// The time for which lines are counted.
pub const WINDOW: Duration = Duration::from_mins(1);
/// Enough to see what a client does.
pub const MAX_LINES_PER_PEER: usize = 10;
/// So that many peers cannot do together what each may not do alone. It also bounds the memory: peers beyond it are not
/// kept.
pub const MAX_LINES_PER_KIND: usize = 100;
/// Of a field in a line that a client can cause, characters.
pub const MAX_FIELD_CHARS: usize = 256;
/// Of any other field: lists of problems are longer.
pub const MAX_OWN_FIELD_CHARS: usize = 4_096;

/// Our modules whose lines are about clients.
const OF_CLIENTS: [&str; 2] = ["defragd::adapters::http", "defragd::app::probe"];

/// Whether a client can cause lines of this module.
fn is_of_clients(module: &str) -> bool {
    let is_within = |of: &str| module.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    !is_within("defragd") || OF_CLIENTS.into_iter().any(is_within)
}

/// Where a line is in the code. What goes through the crate `log` has this in its fields.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Kind {
    module: String,
    line: u64,
}

impl Kind {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let of = event.metadata();
        let mut kind = Self { module: of.target().to_owned(), line: of.line().unwrap_or_default().into() };
        if kind.module == "log" {
            event.record(&mut kind);
        }
        kind
    }

    /// The library, if it is not ours.
    pub(super) fn library(&self) -> Option<&str> {
        let is_ours = self.module == "defragd" || self.module.starts_with("defragd::");
        (!is_ours).then_some(&self.module)
    }

    /// How long a field may be, characters.
    pub(super) fn max_chars(&self) -> usize {
        if is_of_clients(&self.module) { MAX_FIELD_CHARS } else { MAX_OWN_FIELD_CHARS }
    }
}

impl Visit for Kind {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            value.clone_into(&mut self.module);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// The text of a value, at most this many characters.
pub fn cut(value: &dyn fmt::Debug, max_chars: usize) -> String {
    struct Short {
        text: String,
        left: usize,
    }
    impl Write for Short {
        fn write_str(&mut self, more: &str) -> fmt::Result {
            for c in more.chars() {
                // An error, so that the rest is not even formatted.
                self.left = self.left.checked_sub(1).ok_or(fmt::Error)?;
                self.text.push(c);
            }
            Ok(())
        }
    }
    let mut short = Short { text: String::new(), left: max_chars };
    if write!(short, "{value:?}").is_err() {
        short.text.pop();
        short.text.push('…');
    }
    short.text
}

/// The client whose connection a span is about: its field `peer`.
struct Peer(SocketAddr);

/// The client whose connection these spans are about.
pub(super) fn peer<'a, S: LookupSpan<'a>>(spans: Option<Scope<'a, S>>) -> Option<SocketAddr> {
    spans?.find_map(|span| span.extensions().get::<Peer>().map(|Peer(address)| *address))
}

/// What was written and suppressed since the last report.
#[derive(Default)]
pub(super) struct LogLimit {
    kinds: Mutex<HashMap<Kind, Lines>>,
}

/// Lines of one kind.
struct Lines {
    level: Level,
    /// The message of the first one.
    like: String,
    written: usize,
    peers: HashMap<Option<IpAddr>, LinesOfPeer>,
    /// Of all peers, after the kind's limit.
    suppressed: u64,
}

#[derive(Default)]
struct LinesOfPeer {
    written: usize,
    suppressed: u64,
}

impl Lines {
    fn admit(&mut self, peer: Option<IpAddr>) -> bool {
        if self.written >= MAX_LINES_PER_KIND {
            self.suppressed += 1;
            return false;
        }
        let of_peer = self.peers.entry(peer).or_default();
        if of_peer.written >= MAX_LINES_PER_PEER {
            of_peer.suppressed += 1;
            return false;
        }
        of_peer.written += 1;
        self.written += 1;
        true
    }
}

impl LogLimit {
    fn admits(&self, event: &Event<'_>, peer: Option<IpAddr>) -> bool {
        let kind = Kind::of(event);
        if !is_of_clients(&kind.module) {
            return true;
        }
        let new = || {
            let mut like = Message(String::new());
            event.record(&mut like);
            Lines { level: *event.metadata().level(), like: like.0, written: 0, peers: HashMap::new(), suppressed: 0 }
        };
        self.kinds.lock().entry(kind).or_insert_with(new).admit(peer)
    }

    /// Logs what was suppressed since the last report.
    pub(super) fn report(&self) {
        let kinds = std::mem::take(&mut *self.kinds.lock());
        for Lines { level, like, peers, suppressed, .. } in kinds.into_values() {
            let of_peers = peers.into_iter().map(|(peer, lines)| (peer.map(|peer| peer.to_string()), lines.suppressed));
            let rest = (Some("others".to_owned()), suppressed);
            for (peer, suppressed) in of_peers.chain([rest]).filter(|(_, suppressed)| *suppressed > 0) {
                const WHAT: &str = "suppressed further lines like this one";
                match level {
                    Level::ERROR => error!(suppressed, peer, like, "{WHAT}"),
                    Level::WARN => warn!(suppressed, peer, like, "{WHAT}"),
                    _ => info!(suppressed, peer, like, "{WHAT}"),
                }
            }
        }
    }

    /// Reports once in a while, for the rest of the process.
    pub(super) fn report_always(self: Arc<Self>) {
        // A thread of its own: a busy runtime must not delay it. Without one, only the end of the process is reported.
        let _ = std::thread::Builder::new().name("log-limit".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(WINDOW);
                self.report();
            }
        });
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = cut(value, MAX_FIELD_CHARS);
        }
    }
}

/// Applies the limit to everything that is logged.
pub(super) struct LimitLayer(pub(super) Arc<LogLimit>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LimitLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut found = FoundPeer(None);
        attributes.record(&mut found);
        if let (Some(peer), Some(span)) = (found.0, context.span(id)) {
            span.extensions_mut().insert(peer);
        }
    }

    fn event_enabled(&self, event: &Event<'_>, context: Context<'_, S>) -> bool {
        self.0.admits(event, peer(context.event_scope(event)).map(|peer| peer.ip()))
    }
}

struct FoundPeer(Option<Peer>);

impl Visit for FoundPeer {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "peer" {
            self.0 = format!("{value:?}").parse().ok().map(Peer);
        }
    }
}

#[cfg(test)]
#[path = "log_limit_tests.rs"]
mod tests;
