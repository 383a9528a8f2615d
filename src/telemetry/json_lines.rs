//! A log line as one JSON object, with the keys of logfmt: `ts`, `level`, `message`, then the event's own.
//!
//! tracing-subscriber's JSON has other names for the first two, upper-case levels, and no way to change them.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut object = Object { writer: writer.by_ref(), written: Ok(()), opening: '{' };
        object.put("ts", Timestamp::now());
        object.put("level", event.metadata().level().as_str().to_lowercase());
        event.record(&mut object);
        object.written?;
        writer.write_str("}\n")
    }
}

struct Object<'a> {
    writer: Writer<'a>,
    /// The first failure.
    written: fmt::Result,
    /// What comes before the next key.
    opening: char,
}

impl Object<'_> {
    fn put(&mut self, key: &str, value: impl Serialize) {
        let write = |object: &mut Self| {
            let text = |value: serde_json::Result<String>| value.map_err(|_| fmt::Error);
            let (key, value) = (text(serde_json::to_string(key))?, text(serde_json::to_string(&value))?);
            write!(object.writer, "{}{key}:{value}", object.opening)
        };
        if self.written.is_ok() {
            self.written = write(self);
            self.opening = ',';
        }
    }
}

impl Visit for Object<'_> {
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
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}
