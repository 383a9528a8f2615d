//! Schedules: times at which a run is requested without any alert.
//!
//! A line is written in local time, in five fields as for cron. If the clock is put forward over a fixed time (minute
//! and hour are numbers or lists of them), that time is due once, at the moment of the change; if the clock is put back
//! over it, it is due once, at the first of the two. Any other line, like `*/15 * * * *`, follows the hours that really
//! pass.
//!
//! Which due times are already decided is in the journal: see [`super::due`].

use std::{cmp::Ordering, time::Duration};

use croner::{
    CivilDate, CivilDateTime, CivilTime, Cron, CronDateTime, Resolution, Weekday,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone},
};
use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

use super::{
    check::{TEXT, read_from_text},
    window,
};

/// For how long after a due time its request is still made, if defragd was down or did not hold the lock.
pub const CATCH_UP: Duration = Duration::from_hours(1);

/// The fields of a line, with their values.
const FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31, L for the last"),
    ("month", "1 to 12, jan to dec"),
    ("day of week", "0 to 7, sun to sat"),
];

/// What is wrong with a line of a schedule.
#[derive(Debug, Error)]
pub enum BadLine {
    #[error("needs five fields, minute, hour, day of month, month and day of week, like \"0 3 * * sun\"")]
    NotFive,
    #[error("has the {name} {text:?}; write {values}, *, a list like 1,4, a range like 1-4, or */2")]
    Field { name: &'static str, values: &'static str, text: String },
    #[error(transparent)]
    Cron(#[from] CronError),
    #[error("names a day that does not exist in any year")]
    NoSuchDay,
}

/// Times at which a run is requested.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Five fields: minute, hour, day of month, month, day of week, like `0 3 * * sun`.
    #[schemars(with = "String")]
    cron: Fields,
    /// IANA name of the time zone, like `Europe/Berlin`.
    #[serde(default = "utc", deserialize_with = "window::timezone")]
    #[schemars(with = "String", extend("default" = "UTC"))]
    timezone: TimeZone,
}

const fn utc() -> TimeZone {
    TimeZone::UTC
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Fields {
    text: String,
    /// One for each fixed time: croner accepts a list of times for a repeating line.
    each: Vec<Cron>,
}

read_from_text!(Fields, TEXT, |text| Self::parse(text).map_err(|error| format!("{text:?} {error}")), Self::default);

impl Fields {
    fn parse(text: &str) -> Result<Self, BadLine> {
        let fields: Vec<_> = text.split_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(BadLine::NotFive);
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let wrong = |index: &usize| {
            let alone: Vec<_> =
                (0..FIELDS.len()).map(|other| if other == *index { fields[other] } else { "*" }).collect();
            parser.parse(&alone.join(" ")).is_err()
        };
        let cron = parser.parse(text).map_err(|error| match (0..FIELDS.len()).find(wrong) {
            Some(index) => {
                let (name, values) = FIELDS[index];
                BadLine::Field { name, values, text: fields[index].to_owned() }
            }
            None => BadLine::Cron(error),
        })?;
        let (minutes, hours) = (fields[0], fields[1]);
        let is_fixed = [minutes, hours].iter().all(|field| field.chars().all(|c| c.is_ascii_digit() || c == ','));
        let times = hours.split(',').flat_map(|hour| minutes.split(',').map(move |minute| format!("{minute} {hour}")));
        let one = |time: String| parser.parse(&format!("{time} {}", fields[2..].join(" ")));
        let each = if is_fixed { times.map(one).collect() } else { Ok(vec![cron.clone()]) };
        let fields = Self { text: cron.as_str().to_owned(), each: each? };
        // The calendar is the same in every 400 years, and in every time zone.
        fields.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC).is_some().then_some(fields).ok_or(BadLine::NoSuchDay)
    }

    fn next(&self, after: Timestamp, timezone: &TimeZone) -> Option<Timestamp> {
        let after = Local { at: after, timezone };
        self.each.iter().filter_map(|cron| Some(cron.find_next_occurrence(&after, false).ok()?.at)).min()
    }
}

impl Line {
    /// Reads five fields.
    pub fn parse(text: &str, timezone: TimeZone) -> Result<Self, BadLine> {
        Ok(Self { cron: Fields::parse(text)?, timezone })
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.next(after, &self.timezone)
    }
}

/// All lines of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct Timetable(pub Vec<Line>);

impl Timetable {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next due time after `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.0.iter().filter_map(|line| line.next(after)).min()
    }

    /// The last due time that is not older than [`CATCH_UP`] and later than `since`, when the schedule was first known.
    pub fn due(&self, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
        let oldest = now.checked_sub(CATCH_UP).unwrap_or(Timestamp::MIN);
        let first = self.next(since.max(oldest)).filter(|due| *due <= now)?;
        let later = std::iter::successors(Some(first), |due| self.next(*due).filter(|next| next > due));
        later.take_while(|due| *due <= now).last()
    }

    /// The same text for the same lines: to detect a change.
    pub fn text(&self) -> String {
        let line = |line: &Line| {
            let zone = line.timezone.iana_name().unwrap_or("UTC");
            format!("{} {zone}", line.cron.text)
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A time on the clock of a time zone. croner's own support of jiff is for an earlier jiff.
#[derive(Clone)]
struct Local<'a> {
    at: Timestamp,
    timezone: &'a TimeZone,
}

#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "fields of a calendar")]
impl CronDateTime for Local<'_> {
    fn to_civil(&self) -> CivilDateTime {
        let local = self.timezone.to_datetime(self.at);
        let fields = [local.month(), local.day(), local.hour(), local.minute(), local.second()];
        let [month, day, hour, minute, second] = fields.map(|field| field as u32);
        CivilDateTime::new(
            CivilDate::from_parts_unchecked(i32::from(local.year()), month, day),
            CivilTime::from_parts_unchecked(hour, minute, second),
        )
    }

    fn civil_weekday(&self) -> Weekday {
        let weekday = self.timezone.to_datetime(self.at).weekday();
        Weekday::from_days_from_sunday(weekday.to_sunday_zero_offset() as u32)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let fields = [civil.month(), civil.day(), civil.hour(), civil.minute(), civil.second()];
        let [month, day, hour, minute, second] = fields.map(|field| field as i8);
        let local = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        let with = |offset: Offset| {
            let at = offset.to_timestamp(local).map_err(|_| CronError::InvalidTime)?;
            Ok(Self { at, ..self.clone() })
        };
        Ok(match self.timezone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => Resolution::Single(with(offset)?),
            AmbiguousOffset::Fold { before, after } => Resolution::Ambiguous(with(before)?, with(after)?),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        let at = self.at.checked_add(SignedDuration::from_secs(seconds)).ok()?;
        Some(Self { at, ..self.clone() })
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
