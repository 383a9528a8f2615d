//! Alertmanager's matchers. They are sent as they are written; what Alertmanager would reject is found here.

use thiserror::Error;

use crate::core::expect::{ExpectError, Pattern};

const HINT: &str = "write one matcher, like 'severity=\"critical\"' or 'alertname=~\"etcd.*\"'";
const OPERATORS: [&str; 4] = ["=~", "!~", "!=", "="];
const MAX_BYTES: usize = 1_000;

/// What is wrong with a matcher, and what to write instead.
#[derive(Debug, Error)]
pub(super) enum BadMatcher {
    #[error("must be one line of at most {MAX_BYTES} bytes")]
    NotOneLine,
    #[error("{text:?} {what}; {HINT}")]
    Syntax { text: String, what: &'static str },
    #[error("{text:?}: its value {error}")]
    Pattern { text: String, error: ExpectError },
}

/// Checks a matcher, without surrounding blanks.
pub(super) fn check(text: &str) -> Result<(), BadMatcher> {
    if text.len() > MAX_BYTES || text.chars().any(char::is_control) {
        return Err(BadMatcher::NotOneLine);
    }
    let bad = |what: &'static str| BadMatcher::Syntax { text: text.to_owned(), what };
    let (name, rest) = if text.starts_with('"') {
        quoted(text).ok_or_else(|| bad("has a quote that does not end"))?
    } else {
        let end = text.find(['=', '!']).ok_or_else(|| bad("has no =, !=, =~ or !~"))?;
        (text[..end].trim().to_owned(), &text[end..])
    };
    let rest = rest.trim_start();
    let operator = OPERATORS
        .into_iter()
        .find(|operator| rest.starts_with(operator))
        .ok_or_else(|| bad("has no =, !=, =~ or !~"))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let is_name = !name.is_empty()
        && (text.starts_with('"') || name.chars().all(plain))
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name {
        return Err(bad("has no label name before its operator"));
    }
    let value = rest[operator.len()..].trim();
    let value = if value.starts_with('"') {
        let (value, behind) = quoted(value).ok_or_else(|| bad("has a quote that does not end"))?;
        if !behind.trim().is_empty() {
            return Err(bad("has text after its value"));
        }
        value
    } else if value.is_empty() || value.contains(['"', '\'', '{', '}', ',', '=', '!', '~', ' ', '`']) {
        return Err(bad("has a value that needs double quotes"));
    } else {
        value.to_owned()
    };
    if operator.ends_with('~') && !value.is_empty() {
        Pattern::parse(&value).map_err(|error| BadMatcher::Pattern { text: text.to_owned(), error })?;
    }
    Ok(())
}

/// The text between the quotes that `text` begins with, and the text after them.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                // Alertmanager keeps other backslashes.
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}
