use jiff::tz::TimeZoneDatabase;
use proptest::prelude::*;

use super::*;

fn line(text: &str, zone: &str) -> Line {
    Line::parse(text, TimeZoneDatabase::bundled().get(zone).expect("a zone")).unwrap_or_else(|error| panic!("{error}"))
}

fn timetable(lines: &[(&str, &str)]) -> Timetable {
    Timetable(lines.iter().map(|(text, zone)| line(text, zone)).collect())
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// The due times after `from`, up to `to`.
fn due_times(timetable: &Timetable, from: &str, to: &str) -> Vec<String> {
    let times = std::iter::successors(timetable.next(at(from)), |due| timetable.next(*due));
    times.take_while(|due| *due <= at(to)).map(|due| due.to_string()).collect()
}

#[test]
fn a_line_is_due_by_the_clock_of_its_time_zone() {
    let sundays = timetable(&[("0 3 * * sun", "Europe/Berlin")]);
    // 2026-11-29 is a Sunday, and Berlin at UTC+1.
    assert_eq!(sundays.next(at("2026-11-23T10:00:00Z")), Some(at("2026-11-29T02:00:00Z")));
    assert_eq!(sundays.next(at("2026-11-29T01:59:59.9Z")), Some(at("2026-11-29T02:00:00Z")));
    assert_eq!(sundays.next(at("2026-11-29T02:00:00Z")), Some(at("2026-12-06T02:00:00Z")));
    let two = timetable(&[("0 3 * * sun", "UTC"), ("30 1 1 jan,jul *", "UTC")]);
    let from_to = |from, to| due_times(&two, from, to);
    assert_eq!(
        from_to("2026-12-26T00:00:00Z", "2027-01-04T00:00:00Z"),
        ["2026-12-27T03:00:00Z", "2027-01-01T01:30:00Z", "2027-01-03T03:00:00Z"]
    );
    assert_eq!(Timetable::default().next(at("2026-12-26T00:00:00Z")), None);
}

/// (zone, line, from, to, due times)
type Change = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

fn check(table: &[Change]) {
    for (zone, text, from, to, expected) in table {
        assert_eq!(due_times(&timetable(&[(text, zone)]), from, to), *expected, "{text} {zone} from {from}");
    }
}

#[test]
fn where_the_clock_is_put_forward_over_a_fixed_time_it_is_due_once_at_the_change() {
    check(&[
        // Berlin, 2026-03-29: 02:00 becomes 03:00, at 01:00 UTC.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-03-27T12:00:00Z",
            "2026-03-30T12:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        (
            "Europe/Berlin",
            "0 1,3 * * sun",
            "2026-03-28T12:00:00Z",
            "2026-03-29T12:00:00Z",
            &["2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"],
        ),
        (
            "Europe/Berlin",
            "0,30 2,14 * * *",
            "2026-03-28T22:00:00Z",
            "2026-03-30T00:15:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T12:00:00Z", "2026-03-29T12:30:00Z", "2026-03-30T00:00:00Z"],
        ),
        // New York, 2026-03-08: 02:00 becomes 03:00, at 07:00 UTC.
        (
            "America/New_York",
            "15 2 * * *",
            "2026-03-07T12:00:00Z",
            "2026-03-09T12:00:00Z",
            &["2026-03-08T07:00:00Z", "2026-03-09T06:15:00Z"],
        ),
        (
            "America/New_York",
            "*/30 * * * *",
            "2026-03-08T06:00:00Z",
            "2026-03-08T08:00:00Z",
            &["2026-03-08T06:30:00Z", "2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z", "2026-03-08T08:00:00Z"],
        ),
    ]);
}

#[test]
fn where_the_clock_is_put_back_over_a_fixed_time_it_is_due_once_at_the_first_of_the_two() {
    check(&[
        // Berlin, 2026-10-25: 03:00 becomes 02:00, at 01:00 UTC.
        (
            "Europe/Berlin",
            "30 2 * * *",
            "2026-10-24T12:00:00Z",
            "2026-10-26T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        ("Europe/Berlin", "0 3 * * sun", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z", &["2026-10-25T02:00:00Z"]),
        (
            "Europe/Berlin",
            "30 2,14 * * *",
            "2026-10-24T22:00:00Z",
            "2026-10-25T22:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T13:30:00Z"],
        ),
        // New York, 2026-11-01: 02:00 becomes 01:00, at 06:00 UTC.
        (
            "America/New_York",
            "30 1 * * *",
            "2026-10-31T12:00:00Z",
            "2026-11-02T12:00:00Z",
            &["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"],
        ),
        // Repeating times follow the hours that pass.
        (
            "America/New_York",
            "0 * * * *",
            "2026-11-01T04:30:00Z",
            "2026-11-01T07:00:00Z",
            &["2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z"],
        ),
    ]);
}

#[test]
fn a_line_that_is_no_line_is_refused_in_words() {
    for (text, says) in [
        ("", "five fields"),
        ("0 3 * *", "five fields"),
        ("0 0 3 * * sun", "five fields"),
        ("60 3 * * *", "the minute \"60\"; write 0 to 59"),
        ("0 3 * * caturday", "the day of week \"caturday\""),
        ("0 0 30 2 *", "a day that does not exist in any year"),
    ] {
        let error = Line::parse(text, TimeZone::UTC).expect_err(text).to_string();
        assert!(error.contains(says), "{text:?}: {error}");
    }
}

#[test]
fn what_was_missed_is_due_for_an_hour_and_only_its_last_time() {
    let hourly = timetable(&[("0 3 * * *", "UTC")]);
    let long_known = at("2026-11-01T00:00:00Z");
    let due = |since: Timestamp, now| hourly.due(since, at(now)).map(|due| due.to_string());
    assert_eq!(due(long_known, "2026-11-29T02:59:59Z"), None);
    assert_eq!(due(long_known, "2026-11-29T03:00:00Z").as_deref(), Some("2026-11-29T03:00:00Z"));
    assert_eq!(due(long_known, "2026-11-29T03:59:59Z").as_deref(), Some("2026-11-29T03:00:00Z"));
    assert_eq!(due(long_known, "2026-11-29T04:00:00Z"), None, "the next one is waited for");
    assert_eq!(
        due(at("2026-11-29T03:00:00Z"), "2026-11-29T03:30:00Z"),
        None,
        "a new schedule begins with its next time"
    );
    let often = timetable(&[("*/10 * * * *", "UTC"), ("*/15 * * * *", "UTC")]);
    assert_eq!(often.due(long_known, at("2026-11-29T03:17:00Z")), Some(at("2026-11-29T03:15:00Z")));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Wherever the search begins, it finds the same times: otherwise a restart would miss or repeat one.
    #[test]
    fn the_due_times_do_not_depend_on_where_the_search_begins(
        (minute, hour) in (0..60u8, 0..5u8),
        repeats in prop::sample::select(vec!["", "*/20 *", "10-50/7 1-4", "5,35 1,2,3"]),
        // Around the changes of 2026.
        change in prop::sample::select(vec![
            ("Europe/Berlin", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-11-01T06:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ]),
        offset in -36_000..36_000i64,
    ) {
        let fields = if repeats.is_empty() { format!("{minute} {hour}") } else { repeats.to_owned() };
        let (zone, moment) = change;
        let timetable = timetable(&[(&format!("{fields} * * *"), zone)]);
        let begins = at(moment) - SignedDuration::from_hours(30);
        let all = std::iter::successors(timetable.next(begins), |due| timetable.next(*due)).take(400);
        let from = at(moment) + SignedDuration::from_secs(offset);
        let mut previous = None;
        let mut expected = None;
        for due in all {
            prop_assert!(previous.is_none_or(|previous| previous < due));
            previous = Some(due);
            if due > from {
                expected = Some(due);
                break;
            }
        }
        prop_assert_eq!(timetable.next(from), expected);
    }
}
