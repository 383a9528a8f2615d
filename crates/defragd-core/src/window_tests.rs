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
