//! Durations as people write them: in flags, in files, in requests. The same format everywhere.

use std::{
    borrow::Cow,
    fmt::{Display, Formatter},
    str::FromStr,
    time::Duration,
};

use jiff::{SignedDuration, Span, SpanRelativeTo};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::{self, read_from_text};

/// Like `90s`, `1h30m`, `2d` or `1w`: days have 24 hours here, as they have for Prometheus. Never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Duration);

impl FromStr for Time {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let span = text.parse::<Span>().map_err(|_| "it is not a duration: write it like 90s, 10m, 1h30m, 2d or 1w")?;
        let time = span
            .to_duration(SpanRelativeTo::days_are_24_hours())
            .map_err(|_| "months and years differ in length: write it in days or weeks, like 30d or 4w")?;
        Duration::try_from(time).map(Self).map_err(|_| "it must not be negative")
    }
}

impl From<Duration> for Time {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl Time {
    /// For jiff. No text is longer than its longest.
    fn signed(self) -> SignedDuration {
        SignedDuration::try_from(self.0).unwrap_or(SignedDuration::MAX)
    }
}

/// Like `1h 30m`; days as hours.
impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.signed())
    }
}

/// Like `PT1H30M`, without days: replicas of earlier versions read it, too.
impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.signed().serialize(serializer)
    }
}

read_from_text!(Time, check::TIME, str::parse, Self::default);

/// A key that is a duration, written as a [`Time`].
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Time::deserialize(deserializer).map(Duration::from)
}

/// The same, for a key without default.
pub fn maybe_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<Time>::deserialize(deserializer)?.map(Duration::from))
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "duration" })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_knows_days_and_says_how_it_is_written() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h30m", 5_400),
            ("1d", 86_400),
            ("1d12h", 129_600),
            ("1d 12h", 129_600),
            ("2w", 1_209_600),
            ("1w 2d", 777_600),
            ("0s", 0),
            ("PT1H", 3_600),
            ("P1DT12H", 129_600),
        ] {
            assert_eq!(text.parse(), Ok(Time(Duration::from_secs(seconds))), "{text}");
        }
        for (text, says) in [
            ("soon", "like 90s"),
            ("30", "like 90s"),
            ("", "like 90s"),
            ("1mo", "30d"),
            ("1y", "30d"),
            ("-1h", "negative"),
        ] {
            let error = text.parse::<Time>().expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    proptest! {
        /// What is displayed can be typed; what one replica writes, the other reads.
        #[test]
        fn a_time_is_read_back_as_it_was_written(millis in 0..10_000_000_000_u64) {
            let time = Time(Duration::from_millis(millis));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            let written = serde_json::to_string(&time).expect("a text");
            prop_assert_eq!(serde_json::from_str::<Time>(&written).expect("ours"), time);
        }
    }
}
