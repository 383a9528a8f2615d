//! Maintenance windows: when runs may begin.
//!
//! A window is written in local time, and occurs once on each of its days. If the clock is put forward over one of its
//! ends, that end is the moment of the change; if the clock is put back over it, the end is the first of the two. So a
//! window is never open twice a day and never longer than it says plus the change; one that lies wholly within a
//! skipped hour does not occur on that day.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use super::check::{At, TEXT, from_text, read_from_text};

/// How far to search for an opening. A window occurs at least weekly, unless a change of the clock skips it.
const HORIZON_DAYS: i32 = 22;

/// A weekly maintenance window.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which it opens, like `sat` or `saturday`.
    #[serde(default, deserialize_with = "days")]
    #[schemars(with = "Vec<String>", extend("x-default" = "every day"))]
    pub days: Vec<Weekday>,
    /// When it opens, like `"02:00"`.
    #[serde(deserialize_with = "start")]
    #[schemars(with = "String")]
    pub start: Time,
    /// When it closes, like `"05:00"`. If it is before `start`, it is on the next day; `"24:00"` is the end of the day.
    #[serde(deserialize_with = "end")]
    #[schemars(with = "String")]
    pub end: Time,
    /// IANA name of the time zone, like `Europe/Berlin`.
    #[serde(deserialize_with = "timezone")]
    #[schemars(with = "String")]
    pub timezone: TimeZone,
}

struct Day(Weekday);

/// What is wrong with a part of a window, and what to write instead.
#[derive(Debug, Error)]
enum BadWindow {
    #[error("{0:?} is not a day; write mon, tue, wed, thu, fri, sat or sun")]
    Day(String),
    #[error("{0:?} is not a time of day; write it like \"02:00\"")]
    Clock(String),
    #[error("{0:?} is not in the IANA time zone database; write it like Europe/Berlin or UTC")]
    TimeZone(String),
}

read_from_text!(Day, TEXT, Self::parse, || Self(Weekday::Monday));

impl Day {
    fn parse(text: &str) -> Result<Self, BadWindow> {
        const DAYS: [(&str, Weekday); 7] = [
            ("monday", Weekday::Monday),
            ("tuesday", Weekday::Tuesday),
            ("wednesday", Weekday::Wednesday),
            ("thursday", Weekday::Thursday),
            ("friday", Weekday::Friday),
            ("saturday", Weekday::Saturday),
            ("sunday", Weekday::Sunday),
        ];
        let word = text.trim().to_ascii_lowercase();
        let day = DAYS.into_iter().find(|(name, _)| word == *name || word == name[..3]);
        day.map(|(_, day)| Self(day)).ok_or_else(|| BadWindow::Day(text.to_owned()))
    }
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Weekday>, D::Error> {
    Ok(Vec::<Day>::deserialize(deserializer)?.into_iter().map(|day| day.0).collect())
}

fn start<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    from_text(deserializer, TEXT, clock, Time::midnight)
}

fn end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    // The end of a day is the next midnight.
    let parse = |text: &str| if text.trim() == "24:00" { Ok(Time::midnight()) } else { clock(text) };
    from_text(deserializer, TEXT, parse, Time::midnight)
}

fn clock(text: &str) -> Result<Time, BadWindow> {
    let two_digits =
        |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?;
    let time = text
        .trim()
        .split_once(':')
        .and_then(|(hour, minute)| Time::new(two_digits(hour)?, two_digits(minute)?, 0, 0).ok());
    time.ok_or_else(|| BadWindow::Clock(text.to_owned()))
}

pub(super) fn timezone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TimeZone, D::Error> {
    let parse = |name: &str| {
        // The bundled database: the same result on every machine, even without an installed one.
        TimeZoneDatabase::bundled().get(name.trim()).map_err(|_| BadWindow::TimeZone(name.to_owned()))
    };
    from_text(deserializer, TEXT, parse, || TimeZone::UTC)
}

impl Window {
    /// The occurrence that opens on this day.
    fn on(&self, day: Date) -> Option<(Timestamp, Timestamp)> {
        if !self.days.is_empty() && !self.days.contains(&day.weekday()) {
            return None;
        }
        let last = if self.end <= self.start { day.tomorrow().ok()? } else { day };
        let opens = self.instant(day.to_datetime(self.start))?;
        let closes = self.instant(last.to_datetime(self.end))?;
        (opens < closes).then_some((opens, closes))
    }

    fn instant(&self, local: DateTime) -> Option<Timestamp> {
        match self.timezone.to_ambiguous_timestamp(local).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // By the clock that is already put forward, this time lies before the change.
                let before_change = after.to_timestamp(local).ok()?;
                self.timezone.following(before_change).next().map(|change| change.timestamp())
            }
        }
    }

    /// The occurrences that are open at `now` or open after it, in order.
    fn occurrences(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = self.timezone.to_datetime(now).date();
        // Two days back: past midnight, and whatever a change of the clock may shift.
        (-2..HORIZON_DAYS)
            .filter_map(move |days| today.checked_add(jiff::Span::new().days(days)).ok())
            .filter_map(|day| self.on(day))
            .filter(move |(_, closes)| *closes > now)
    }
}

/// All windows of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
pub struct Schedule(pub Vec<Window>);

impl Schedule {
    pub fn check(&self, mut at: At<'_>) {
        for (index, window) in self.0.iter().enumerate() {
            // From midnight to midnight is the whole day.
            if window.start == window.end && window.start != Time::midnight() {
                let what = "is equal to start; for a whole day write 00:00 and 24:00";
                at.add(&format!("[{index}].end"), what);
            }
        }
    }

    /// Whether runs may begin. Without windows they always may.
    pub fn open_at(&self, now: Timestamp) -> bool {
        self.0.is_empty() || self.until(now).is_some()
    }

    /// When the open window closes, including others that follow or overlap. `None` if none is open, and without
    /// windows.
    pub fn closes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let mut closes = self.until(now)?;
        // Windows that cover the whole week never close; the horizon ends the search.
        for _ in 0..HORIZON_DAYS {
            match self.until(closes) {
                Some(later) => closes = later,
                None => break,
            }
        }
        Some(closes)
    }

    /// When the next window opens, after `now`: a moment before which none is open. `None` without windows.
    pub fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        let nanosecond = jiff::SignedDuration::from_nanos(1);
        let mut openings: Vec<_> =
            self.0.iter().flat_map(|window| window.occurrences(now)).map(|(opens, _)| opens).collect();
        openings.sort_unstable();
        openings.into_iter().find(|opens| {
            *opens > now && opens.checked_sub(nanosecond).is_ok_and(|before| self.until(before).is_none())
        })
    }

    /// The latest end of the occurrences that are open now.
    fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let open = self.0.iter().flat_map(|window| window.occurrences(now)).filter(|(opens, _)| *opens <= now);
        open.map(|(_, closes)| closes).max()
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
