//! What the gates expect of an answer: status codes, a pattern in a text, samples of a query.

use std::fmt;

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use crate::check::{TEXT, read_from_text};

/// A longer pattern is a program.
const MAX_PATTERN_BYTES: usize = 1_000;
/// Compiled. `regex` runs in linear time, so only the memory needs a limit.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Why an expectation is invalid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ExpectError(String);

/// Some HTTP status codes: single ones, and classes like `2xx`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(with = "Vec<Status>")]
pub struct Statuses(Vec<Span>);

/// A status code, or a class of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "for the schema only")]
enum Status {
    /// Like 200.
    Code(i64),
    /// Like `2xx`.
    Class(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    first: u16,
    last: u16,
}

read_from_text!(Span, TEXT, span, Self::default);

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![Span { first: 200, last: 299 }])
    }
}

impl Statuses {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|span| (span.first..=span.last).contains(&status))
    }
}

fn span(word: &str) -> Result<Span, ExpectError> {
    let bad = || ExpectError(format!("{word:?} is not an HTTP status; write 200, or 2xx for all of 200 to 299"));
    let word = word.trim();
    if let Some(class) = word.strip_suffix("xx").or_else(|| word.strip_suffix("XX")) {
        let class = class.parse::<u16>().ok().filter(|class| (1..=5).contains(class)).ok_or_else(bad)?;
        return Ok(Span { first: class * 100, last: class * 100 + 99 });
    }
    let code = word.parse::<u16>().ok().filter(|code| (100..=599).contains(code)).ok_or_else(bad)?;
    Ok(Span { first: code, last: code })
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans = self.0.iter().map(
            |Span { first, last }| {
                if first == last { first.to_string() } else { format!("{}xx", first / 100) }
            },
        );
        f.write_str(&spans.collect::<Vec<_>>().join(" or "))
    }
}

/// A regular expression that must match somewhere in a text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "String")]
pub struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = ExpectError;

    fn try_from(text: String) -> Result<Self, ExpectError> {
        Self::parse(&text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, ExpectError> {
        if text.is_empty() {
            return Err(ExpectError("is empty, and would match every body; remove it".to_owned()));
        }
        if text.len() > MAX_PATTERN_BYTES {
            return Err(ExpectError(format!("is longer than {MAX_PATTERN_BYTES} bytes")));
        }
        let compiled =
            RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).build();
        // The library's error has several lines with a marked excerpt; the last one says what is wrong.
        let last = |error: &regex::Error| error.to_string().lines().last().unwrap_or_default().to_owned();
        compiled.map(Self).map_err(|error| ExpectError(format!("is not a regular expression: {}", last(&error))))
    }

    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// The expected result of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema, strum::Display)]
#[serde(rename_all = "snake_case")]
pub enum Samples {
    /// No samples: the query selects bad states.
    #[default]
    #[strum(to_string = "no sample")]
    Empty,
    /// At least one: the query selects good states.
    #[strum(to_string = "at least one sample")]
    NotEmpty,
    /// At least one, and each above this.
    #[strum(to_string = "samples above {0}, and at least one")]
    Above(f64),
    /// At least one, and each below this.
    #[strum(to_string = "samples below {0}, and at least one")]
    Below(f64),
}

/// The comparison of the samples with what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SampleVerdict {
    Met,
    /// There is none, but there must be.
    Missing,
    /// These are not as expected, by their index.
    Unmet(Vec<usize>),
}

impl Samples {
    /// Compares the values. A value that is not a number (NaN) satisfies no threshold.
    pub fn judge(self, values: &[f64]) -> SampleVerdict {
        let unmet = |good: &dyn Fn(f64) -> bool| {
            let bad: Vec<_> = (0..values.len()).filter(|index| !good(values[*index])).collect();
            if bad.is_empty() { SampleVerdict::Met } else { SampleVerdict::Unmet(bad) }
        };
        match self {
            Self::Empty => unmet(&|_| false),
            _ if values.is_empty() => SampleVerdict::Missing,
            Self::NotEmpty => SampleVerdict::Met,
            Self::Above(limit) => unmet(&|value| value > limit),
            Self::Below(limit) => unmet(&|value| value < limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_codes_and_classes() {
        let read = |words: &[&str]| serde_json::from_value::<Statuses>(serde_json::json!(words));
        let some = read(&["200", "4xx"]).expect("valid");
        assert!(some.contains(200) && some.contains(401) && !some.contains(204) && !some.contains(500));
        assert_eq!(some.to_string(), "200 or 4xx");
        assert!(Statuses::default().contains(204) && !Statuses::default().contains(302));
        for bad in ["0", "99", "600", "6xx", "xx", "ok", "-200", "2x", "٢xx"] {
            assert!(read(&["200", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_are_bounded() {
        assert!(Pattern::parse("^ok$").expect("valid").is_in("ok"));
        assert!(!Pattern::parse("^ok$").expect("valid").is_in("not ok"));
        for (bad, why) in [
            ("", "every body"),
            ("(", "unclosed group"),
            (&*"x".repeat(1_001), "longer than"),
            ("(?:(?:(?:x{100}){100}){100}){100}", "size limit"),
        ] {
            let error = Pattern::parse(bad).expect_err("invalid").to_string();
            assert!(error.contains(why) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_no_number_or_not_there_satisfies_no_threshold() {
        use SampleVerdict::{Met, Missing, Unmet};
        for (expected, values, verdict) in [
            (Samples::Empty, &[][..], Met),
            (Samples::Empty, &[0.0, 1.0], Unmet(vec![0, 1])),
            (Samples::NotEmpty, &[], Missing),
            (Samples::NotEmpty, &[0.0], Met),
            (Samples::Above(1.0), &[], Missing),
            (Samples::Above(1.0), &[2.0, f64::INFINITY], Met),
            (Samples::Above(1.0), &[2.0, 1.0, f64::NAN], Unmet(vec![1, 2])),
            (Samples::Below(1.0), &[], Missing),
            (Samples::Below(1.0), &[0.5, f64::NEG_INFINITY], Met),
            (Samples::Below(1.0), &[0.5, 1.0, f64::NAN], Unmet(vec![1, 2])),
        ] {
            assert_eq!(expected.judge(values), verdict, "{expected} of {values:?}");
        }
    }
}
