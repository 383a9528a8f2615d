//! The errors of serde, with the path to the value, and in words for people.

use std::fmt::Display;

use serde::de::{Error, Expected, Unexpected};

use super::tree::{Kind, Node};
use crate::{core::check, ports::access::SecretUrl};

/// Longer values are truncated in errors.
const MAX_QUOTED: usize = 40;

/// Keys that are known only to be refused with an explanation.
const NEVER_POSSIBLE: [&str; 1] = ["exec"];

/// An error, and the path to it.
#[derive(Debug, thiserror::Error)]
#[error("{what:?}")]
pub(super) struct Fault {
    pub(super) what: What,
    /// From the innermost outwards: places in lists and mappings.
    pub(super) way: Vec<usize>,
    /// The fault is the name of a key, not its value.
    pub(super) of_key: bool,
}

#[derive(Debug)]
pub(super) enum What {
    UnknownKey(&'static [&'static str]),
    MissingKey(&'static str),
    /// None of these words.
    Word(&'static [&'static str]),
    /// Not of the type that serde names.
    Not(String),
    /// The error of a custom type.
    Other(String),
}

impl Fault {
    pub(super) fn new(what: What) -> Self {
        Self { what, way: Vec::new(), of_key: false }
    }

    /// In the entry with this number.
    pub(super) fn within(mut self, index: usize) -> Self {
        self.way.push(index);
        self
    }

    pub(super) fn in_key(mut self, index: usize) -> Self {
        self.of_key = true;
        self.within(index)
    }

    /// Replaces the error of a type for a text by ours, if we have one.
    pub(super) fn meant(self, wanted: &str) -> Self {
        match (&self.what, wanted_words(wanted)) {
            (What::Other(_) | What::Not(_), Some(_)) if self.way.is_empty() => Self::new(What::Not(wanted.to_owned())),
            _ => self,
        }
    }
}

/// What serde and the types call their expected values, in our words. Their order does not matter.
fn wanted_words(wanted: &str) -> Option<&'static str> {
    Some(match wanted {
        "a boolean" => "true or false",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "path string" => "text",
        check::TIME => "a time like 10s, 5m, 1h30m or 2d",
        "an integer or string" | "parsable string" | "integer overflow" | check::SIZE => "a size like 100MiB or 2GiB",
        "a mapping" => "a mapping (key: value)",
        wanted if wanted.starts_with("struct ") || wanted == "a map" => "a mapping (key: value)",
        wanted if wanted.starts_with("a sequence") || wanted == "a list" => "a list",
        _ => return None,
    })
}

/// The error's text.
pub(super) fn words(what: &What, node: &Node) -> String {
    match what {
        What::UnknownKey([]) => "is unknown, and no keys are allowed here".to_owned(),
        What::UnknownKey(known) => {
            let known: Vec<_> = known.iter().copied().filter(|known| !NEVER_POSSIBLE.contains(known)).collect();
            format!("is unknown; allowed: {}", known.join(", "))
        }
        What::MissingKey(_) => "is missing".to_owned(),
        What::Word(known) if matches!(&node.kind, Kind::Plain(text) | Kind::Quoted(text) if known.contains(&text.as_str())) =>
        {
            format!("{}, which needs a value after it", is_what(node, true))
        }
        What::Word(known) => match &node.kind {
            Kind::Map(entries) if entries.len() == 1 => {
                format!("has the key {:?}; write one of: {}", entries[0].0.name, known.join(", "))
            }
            _ => format!("{}; write one of: {}", is_what(node, true), known.join(", ")),
        },
        What::Other(text) if text.contains("untagged enum") => {
            format!("{}, which is not allowed here", is_what(node, true))
        }
        What::Other(text) => text.lines().next().unwrap_or_default().to_owned(),
        What::Not(wanted) => {
            let words = wanted_words(wanted).unwrap_or(wanted);
            // A value where text or a URL is expected may be a secret.
            let quoted = !matches!(words, "text" | SecretUrl::EXPECTED | "a list" | "a mapping (key: value)");
            let hint = match &node.kind {
                Kind::Plain(text) | Kind::Quoted(text) if is_bare_number(text) && words.starts_with("a time") => {
                    format!(": add a unit, like {0}s, {0}m or {0}h", text.trim())
                }
                Kind::Plain(text) | Kind::Quoted(text) if text.starts_with('-') && words.starts_with("a time") => {
                    ", not negative".to_owned()
                }
                _ => String::new(),
            };
            format!("{}, but must be {words}{hint}", is_what(node, quoted))
        }
    }
}

fn is_bare_number(text: &str) -> bool {
    let text = text.trim();
    !text.is_empty() && text.len() <= 10 && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_what(node: &Node, quoted: bool) -> String {
    match &node.kind {
        _ if node.is_null() => "is empty".to_owned(),
        Kind::Plain(text) | Kind::Quoted(text) if quoted && text.chars().count() <= MAX_QUOTED => {
            format!("is {text:?}")
        }
        Kind::Plain(text) | Kind::Quoted(text) if quoted => {
            format!("is {:?}", text.chars().take(MAX_QUOTED).chain(['…']).collect::<String>())
        }
        Kind::Plain(_) | Kind::Quoted(_) => "is a single value".to_owned(),
        Kind::List(_) => "is a list".to_owned(),
        Kind::Map(_) => "is a mapping".to_owned(),
        Kind::Hole | Kind::Blank => "is missing".to_owned(),
    }
}

impl Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        Self::new(What::Other(text.to_string()))
    }

    fn invalid_type(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(What::Not(wanted.to_string()))
    }

    fn invalid_value(_: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(What::Not(wanted.to_string()))
    }

    fn invalid_length(_: usize, wanted: &dyn Expected) -> Self {
        Self::new(What::Not(wanted.to_string()))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::Word(known))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey(known))
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(What::MissingKey(name))
    }
}
