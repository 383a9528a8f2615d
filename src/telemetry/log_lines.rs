//! A log line as logfmt or JSON, with the same keys: `ts`, `level`, then the event's own, then `target` if a library
//! wrote it and `peer` if it was written for a client.
//!
//! tracing-subscriber's JSON has other names for the first two, upper-case levels, and no way to change them; it and
//! crates for logfmt write values at any length.

use std::fmt;

use jiff::Timestamp;
use serde_json::Value;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::{
    log_limit::{Kind, cut, peer},
    logging::Format,
};

impl<S, N> FormatEvent<S, N> for Format
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let kind = Kind::of(event);
        let mut line = Line { writer, format: *self, max_chars: kind.max_chars(), is_empty: true, written: Ok(()) };
        line.put("ts", Timestamp::now().to_string());
        line.put("level", event.metadata().level().as_str().to_lowercase());
        event.record(&mut line);
        if let Some(library) = kind.library() {
            line.put("target", library);
        }
        if let Some(peer) = peer(context.event_scope()) {
            line.put("peer", peer.to_string());
        }
        line.written?;
        line.writer.write_str(if *self == Self::Json { "}\n" } else { "\n" })
    }
}

struct Line<'a> {
    writer: Writer<'a>,
    format: Format,
    max_chars: usize,
    is_empty: bool,
    /// The first failure.
    written: fmt::Result,
}

impl Line<'_> {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        if self.written.is_ok() {
            let value = value.into();
            self.written = match self.format {
                Format::Json => {
                    let opening = if self.is_empty { '{' } else { ',' };
                    write!(self.writer, "{opening}{}:{value}", Value::from(key))
                }
                Format::Logfmt => {
                    let gap = if self.is_empty { "" } else { " " };
                    match value {
                        Value::String(text)
                            if text.chars().any(|c| c <= ' ' || c.is_control() || "=\"".contains(c)) =>
                        {
                            let text = text.escape_debug().to_string().replace("\\'", "'");
                            write!(self.writer, "{gap}{key}=\"{text}\"")
                        }
                        Value::String(text) => write!(self.writer, "{gap}{key}={text}"),
                        value => write!(self.writer, "{gap}{key}={value}"),
                    }
                }
            };
            self.is_empty = false;
        }
    }
}

impl Visit for Line<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What the crate `log` adds: where the line is in the library.
        if !field.name().starts_with("log.") {
            self.put(field.name(), cut(value, self.max_chars));
        }
    }
}
