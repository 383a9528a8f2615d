//! Checks of settings: what is wrong with them, and where. A file has all of its problems reported at once, so a check adds
//! what it finds and continues.

use std::{borrow::Cow, fmt::Display, marker::PhantomData, time::Duration};

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserializer,
    de::{Error, Visitor},
};

use super::time::Time;

/// What values are called in errors; `config::source` has longer texts for the last two.
pub const TEXT: &str = "text";
pub const TIME: &str = "a time";
pub const SIZE: &str = "a size";

/// Each with its key path, like `clusters[0].policy.mode`, and what to write instead.
#[derive(Debug, Default)]
pub struct Problems(pub Vec<(String, String)>);

impl Problems {
    pub fn add(&mut self, at: impl Into<String>, what: impl Into<String>) {
        self.0.push((at.into(), what.into()));
    }

    pub fn at(&mut self, path: impl Into<String>) -> At<'_> {
        At { path: path.into(), problems: self }
    }
}

/// A place in the settings, for what is found there.
pub struct At<'a> {
    path: String,
    problems: &'a mut Problems,
}

impl At<'_> {
    /// About the value of this key; about the place itself if the key is empty.
    pub fn add(&mut self, key: &str, what: impl Into<String>) {
        self.problems.add(self.path_of(key), what);
    }

    /// The value of this key, like `tls` or `windows[2]`.
    pub fn key(&mut self, key: &str) -> At<'_> {
        At { path: self.path_of(key), problems: self.problems }
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    fn path_of(&self, key: &str) -> String {
        let dot = if key.is_empty() || key.starts_with('[') || self.path.is_empty() { "" } else { "." };
        format!("{}{dot}{key}", self.path)
    }

    /// A problem if the time is not within these limits, both included.
    pub fn time(&mut self, key: &str, value: Duration, (least, most): (Duration, Duration)) {
        if !(least..=most).contains(&value) {
            let [value, least, most] = [value, least, most].map(Time::from);
            self.add(key, format!("is {value}, but must be from {least} to {most}"));
        }
    }
}

/// Reads a value that is written as a text. `blank` takes the place of a wrong one, so that the rest is read and checked as
/// well; the configuration is refused in any case.
///
/// `expecting` is serde's word for such values in errors.
pub fn from_text<'de, D: Deserializer<'de>, T, E: Display>(
    deserializer: D,
    expecting: &'static str,
    parse: fn(&str) -> Result<T, E>,
    blank: fn() -> T,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Text { expecting, parse, blank, error: PhantomData })
}

/// A type that is read by [`from_text`].
#[macro_export]
macro_rules! read_from_text {
    ($type:ty, $expecting:expr, $parse:expr, $blank:expr) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::check::from_text(deserializer, $expecting, $parse, $blank)
            }
        }
    };
}

pub use crate::read_from_text;

struct Text<T, E> {
    expecting: &'static str,
    parse: fn(&str) -> Result<T, E>,
    blank: fn() -> T,
    error: PhantomData<E>,
}

impl<T, E: Display> Visitor<'_> for Text<T, E> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<F: Error>(self, text: &str) -> Result<T, F> {
        (self.parse)(text).map_err(F::custom)
    }

    fn visit_none<F: Error>(self) -> Result<T, F> {
        Ok((self.blank)())
    }
}

/// A size like `100MiB`, or a number of bytes.
pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    from_text(deserializer, SIZE, str::parse, ByteSize::default)
}

/// How a [`ByteSize`] is written.
pub struct Size;

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "title": "size" })
    }
}
