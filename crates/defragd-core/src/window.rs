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

use super::check::{At, TEXT, from_text};

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

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, TEXT, Self::parse, || Self(Weekday::Monday))
    }
}

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

/// A time zone by its name.
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
mod tests {
    use jiff::{SignedDuration, civil::time, tz::TimeZoneDatabase};
    use proptest::prelude::*;

    use super::*;

    fn window(days: &[Weekday], start: (i8, i8), end: (i8, i8), zone: &str) -> Window {
        Window {
            days: days.to_vec(),
            start: time(start.0, start.1, 0, 0),
            end: time(end.0, end.1, 0, 0),
            timezone: TimeZoneDatabase::bundled().get(zone).expect("a zone"),
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// (now, open, closes, next opening), in UTC.
    fn check(schedule: &Schedule, table: &[(&str, bool, Option<&str>, Option<&str>)]) {
        for (now, open, closes, next) in table {
            let moment = at(now);
            assert_eq!(schedule.open_at(moment), *open, "open at {now}");
            assert_eq!(schedule.closes_at(moment), closes.map(at), "end of what is open at {now}");
            assert_eq!(schedule.next_opening(moment), next.map(at), "opening after {now}");
        }
    }

    #[test]
    fn without_windows_it_is_always_open() {
        check(&Schedule::default(), &[("2026-11-23T10:00:00Z", true, None, None)]);
    }

    #[test]
    fn a_weekend_window_opens_in_its_own_time_zone() {
        // 2026-11-28 is a Saturday; Berlin is at UTC+1 in winter.
        let schedule = Schedule(vec![window(&[Weekday::Saturday, Weekday::Sunday], (2, 0), (5, 0), "Europe/Berlin")]);
        check(
            &schedule,
            &[
                ("2026-11-23T02:00:00Z", false, None, Some("2026-11-28T01:00:00Z")),
                ("2026-11-28T00:59:59Z", false, None, Some("2026-11-28T01:00:00Z")),
                ("2026-11-28T01:00:00Z", true, Some("2026-11-28T04:00:00Z"), Some("2026-11-29T01:00:00Z")),
                ("2026-11-28T03:59:59Z", true, Some("2026-11-28T04:00:00Z"), Some("2026-11-29T01:00:00Z")),
                ("2026-11-28T04:00:00Z", false, None, Some("2026-11-29T01:00:00Z")),
                ("2026-11-29T04:00:00Z", false, None, Some("2026-12-05T01:00:00Z")),
            ],
        );
    }

    #[test]
    fn an_end_before_the_start_is_on_the_next_day() {
        let schedule = Schedule(vec![window(&[Weekday::Friday], (22, 0), (4, 0), "UTC")]);
        check(
            &schedule,
            &[
                ("2026-11-27T21:59:00Z", false, None, Some("2026-11-27T22:00:00Z")),
                ("2026-11-28T03:59:00Z", true, Some("2026-11-28T04:00:00Z"), Some("2026-12-04T22:00:00Z")),
                // Friday's window, not Thursday's.
                ("2026-11-27T03:00:00Z", false, None, Some("2026-11-27T22:00:00Z")),
            ],
        );
    }

    #[test]
    fn the_clock_put_forward_shortens_a_window_or_swallows_it() {
        // Berlin, 2026-03-29: 02:00 becomes 03:00, at 01:00 UTC.
        let day = |start, end| Schedule(vec![window(&[], start, end, "Europe/Berlin")]);
        check(
            &day((1, 0), (4, 0)),
            &[("2026-03-29T00:30:00Z", true, Some("2026-03-29T02:00:00Z"), Some("2026-03-29T23:00:00Z"))],
        );
        check(&day((2, 30), (4, 0)), &[("2026-03-29T00:30:00Z", false, None, Some("2026-03-29T01:00:00Z"))]);
        check(
            &day((1, 0), (2, 30)),
            &[("2026-03-29T00:30:00Z", true, Some("2026-03-29T01:00:00Z"), Some("2026-03-29T23:00:00Z"))],
        );
        check(&day((2, 10), (2, 50)), &[("2026-03-28T12:00:00Z", false, None, Some("2026-03-30T00:10:00Z"))]);
    }

    #[test]
    fn the_clock_put_back_does_not_open_a_window_twice() {
        // Berlin, 2026-10-25: 03:00 becomes 02:00, at 01:00 UTC.
        let day = |start, end| Schedule(vec![window(&[], start, end, "Europe/Berlin")]);
        check(
            &day((2, 0), (2, 30)),
            &[
                ("2026-10-25T00:10:00Z", true, Some("2026-10-25T00:30:00Z"), Some("2026-10-26T01:00:00Z")),
                ("2026-10-25T01:10:00Z", false, None, Some("2026-10-26T01:00:00Z")),
            ],
        );
        check(
            &day((2, 30), (3, 30)),
            &[("2026-10-25T00:45:00Z", true, Some("2026-10-25T02:30:00Z"), Some("2026-10-26T01:30:00Z"))],
        );
    }

    #[test]
    fn zones_with_odd_changes_are_understood() {
        // Lord Howe moves by half an hour: 2026-10-04 at 02:00 to 02:30, at 15:30 UTC of the day before.
        let schedule = Schedule(vec![window(&[], (2, 15), (3, 0), "Australia/Lord_Howe")]);
        check(&schedule, &[("2026-10-03T15:00:00Z", false, None, Some("2026-10-03T15:30:00Z"))]);
        // Samoa had no 2011-12-30 at all.
        let schedule = Schedule(vec![window(&[Weekday::Friday], (1, 0), (2, 0), "Pacific/Apia")]);
        check(&schedule, &[("2011-12-29T12:00:00Z", false, None, Some("2012-01-05T11:00:00Z"))]);
    }

    #[test]
    fn windows_that_follow_on_are_one() {
        let schedule = Schedule(vec![
            window(&[], (1, 0), (3, 0), "UTC"),
            window(&[], (3, 0), (5, 0), "UTC"),
            window(&[], (4, 0), (4, 30), "UTC"),
        ]);
        check(
            &schedule,
            &[
                ("2026-11-23T02:00:00Z", true, Some("2026-11-23T05:00:00Z"), Some("2026-11-24T01:00:00Z")),
                ("2026-11-23T00:00:00Z", false, None, Some("2026-11-23T01:00:00Z")),
            ],
        );
    }

    #[test]
    fn a_whole_day_from_midnight_to_midnight_is_open_all_the_time() {
        let schedule = Schedule(vec![window(&[], (0, 0), (0, 0), "Asia/Tokyo")]);
        assert!(schedule.open_at(at("2026-11-23T15:00:00Z")));
        assert_eq!(schedule.next_opening(at("2026-11-23T15:00:00Z")), None);
        assert!(schedule.closes_at(at("2026-11-23T15:00:00Z")) > Some(at("2026-12-01T00:00:00Z")));
    }

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        let zone = prop::sample::select(vec![
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "Asia/Kathmandu",
            "Africa/Casablanca",
        ]);
        let days = prop::sample::subsequence(
            vec![Weekday::Monday, Weekday::Tuesday, Weekday::Thursday, Weekday::Saturday, Weekday::Sunday],
            0..=3,
        );
        let one = (days, 0..24i8, 0..60i8, 0..24i8, 0..60i8, zone)
            .prop_map(|(days, h1, m1, h2, m2, zone)| window(&days, (h1, m1), (h2, m2), zone));
        prop::collection::vec(one, 1..3).prop_map(Schedule)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn openings_and_closings_agree_with_what_is_open(schedule in any_schedule(), second in 1_750_000_000..1_850_000_000i64) {
            let now = Timestamp::from_second(second).expect("in range");
            let a_moment = SignedDuration::from_nanos(1);
            prop_assert_eq!(schedule.closes_at(now).is_some(), schedule.open_at(now));
            if let Some(next) = schedule.next_opening(now) {
                prop_assert!(next > now);
                prop_assert!(schedule.open_at(next) && !schedule.open_at(next - a_moment));
            }
            if let Some(closes) = schedule.closes_at(now) {
                prop_assert!(closes > now && schedule.open_at(closes - a_moment));
                // Where it is open, it is open up to its end.
                let half = closes.duration_since(now) / 2;
                prop_assert!(schedule.open_at(now + half));
            } else if let Some(next) = schedule.next_opening(now) {
                let half = next.duration_since(now) / 2;
                prop_assert!(!schedule.open_at(now + half), "closed up to the next opening");
            }
        }
    }
}
