use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::{Level, error_span, event, subscriber::with_default};
use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt};

use super::*;
use crate::telemetry::logging::Format;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Written {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// What is written meanwhile, and in the report at the end.
fn log(format: Format, act: impl FnOnce()) -> String {
    let (written, limit) = (Written::default(), Arc::<LogLimit>::default());
    let lines = tracing_subscriber::fmt::layer().event_format(format).with_writer(written.clone());
    let subscriber = tracing_subscriber::registry().with(LimitLayer(Arc::clone(&limit))).with(lines);
    with_default(subscriber, || {
        act();
        limit.report();
    });
    String::from_utf8(written.0.lock().expect("no panic").clone()).expect("UTF-8")
}

fn from(peer: &str, act: impl FnOnce()) {
    error_span!("connection", peer = %format_args!("{peer}:4711")).in_scope(act);
}

#[test]
fn a_few_lines_of_a_kind_and_peer_are_written_and_the_others_are_counted() {
    let text = log(Format::Logfmt, || {
        let line = || event!(target: "h2::proto", Level::WARN, "odd frame");
        for peer in ["10.0.0.1", "10.0.0.2"] {
            (0..500).for_each(|_| from(peer, line));
        }
        // Another kind of the same client.
        from("10.0.0.1", || event!(target: "defragd::adapters::http::guard", Level::WARN, path = "/x", "refused"));
        // A connection to a member of etcd has no peer.
        (0..500).for_each(|_| line());
    });
    let all = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(all("message=\"odd frame\" target=h2::proto peer=10.0.0.1:4711"), MAX_LINES_PER_PEER, "{text}");
    assert_eq!(all("message=\"odd frame\""), 3 * MAX_LINES_PER_PEER, "{text}");
    assert_eq!(all("message=refused path=/x peer=10.0.0.1:4711"), 1, "{text}");
    for peer in [" peer=10.0.0.1", " peer=10.0.0.2", ""] {
        let report = format!(
            "level=warn message=\"suppressed further lines like this one\" suppressed=490{peer} like=\"odd frame\""
        );
        assert_eq!(all(&report), 1, "{report}: {text}");
    }
}

#[test]
fn many_peers_together_write_no_more_than_a_kind_may_and_are_not_kept() {
    let limit = Arc::<LogLimit>::default();
    let subscriber = tracing_subscriber::registry().with(LimitLayer(Arc::clone(&limit)));
    with_default(subscriber, || {
        for peer in 0..10_000_u32 {
            from(&IpAddr::from(peer.to_be_bytes()).to_string(), || event!(target: "h2::proto", Level::WARN, "odd"));
        }
    });
    let kinds = limit.kinds.lock();
    let lines = kinds.values().next().expect("one kind");
    assert_eq!((kinds.len(), lines.written, lines.peers.len()), (1, MAX_LINES_PER_KIND, MAX_LINES_PER_KIND));
    assert_eq!(lines.suppressed, 9_900);
}

#[test]
fn lines_about_runs_members_and_decisions_are_never_suppressed() {
    let ours = 500;
    let text = log(Format::Logfmt, || {
        for _ in 0..ours {
            from("10.0.0.1", || {
                event!(target: "defragd::app::log", Level::INFO, "defragmented");
                event!(target: "defragd::app::requests", Level::INFO, "paused");
                event!(target: "defragd::adapters::etcd::login", Level::WARN, "signed out");
                event!(target: "defragd::app::probe", Level::DEBUG, "probed");
            });
        }
    });
    let all = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!([all("=defragmented"), all("=paused"), all("=\"signed out\"")], [ours; 3]);
    assert_eq!(all("message=probed"), MAX_LINES_PER_PEER);
}

#[test]
fn fields_are_cut_and_cannot_forge_a_line_in_either_format() {
    let long = "é".repeat(10_000);
    for format in [Format::Logfmt, Format::Json] {
        let text = log(format, || {
            event!(target: "h2", Level::WARN, a = long, b = ?long, c = %long, "{long}");
            event!(target: "defragd::app", Level::INFO, problems = long, "ours");
            event!(target: "h2", Level::WARN, d = "x\n\"level\":\"error\" level=error\u{1b}[2J it's", "odd");
        });
        let lines: Vec<_> = text.lines().collect();
        let [first, ours, odd] = lines.as_slice() else { panic!("{text}") };
        assert_eq!(first.chars().filter(|c| *c == 'é').count(), 4 * (MAX_FIELD_CHARS - 1) - 1, "{first}");
        assert_eq!(ours.chars().filter(|c| *c == 'é').count(), MAX_OWN_FIELD_CHARS - 1, "{ours}");
        assert!(odd.contains("x\\n\\\"level\\\":") && !odd.contains('\u{1b}') && odd.contains(" it's\""), "{odd}");
    }
}
