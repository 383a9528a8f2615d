//! Maintenance windows, from the written form.

use jiff::{
    civil::{Time, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};

use super::{raw, validate::Problems};
use crate::core::window::{Schedule, Window};

pub(super) fn schedule(at: &str, windows: Vec<raw::Window>, problems: &mut Problems) -> Schedule {
    let read = |(index, raw)| window(&format!("{at}[{index}]"), &raw, problems);
    Schedule(windows.into_iter().enumerate().filter_map(read).collect())
}

fn window(at: &str, raw: &raw::Window, problems: &mut Problems) -> Option<Window> {
    let mut days = Vec::new();
    for (index, text) in raw.days.iter().enumerate() {
        match weekday(text) {
            Some(day) => days.push(day),
            None => problems.add(
                format!("{at}.days[{index}]"),
                format!("{text:?} is not a day; write mon, tue, wed, thu, fri, sat or sun"),
            ),
        }
    }
    let mut clock = |key: &str, text: &str, midnight: bool| {
        let time = time(text, midnight);
        if time.is_none() {
            problems.add(format!("{at}.{key}"), format!("{text:?} is not a time of day; write it like \"02:00\""));
        }
        time
    };
    let start = clock("start", &raw.start, false);
    let end = clock("end", &raw.end, true);
    if start.is_some() && start == end && raw.end.trim() != "24:00" {
        problems.add(format!("{at}.end"), "is equal to start; for a whole day write 00:00 and 24:00");
    }
    let timezone = timezone(&format!("{at}.timezone"), &raw.timezone, problems);
    Some(Window { days, start: start?, end: end?, timezone: timezone? })
}

pub(super) fn timezone(at: &str, name: &str, problems: &mut Problems) -> Option<TimeZone> {
    // The bundled database: the same result on every machine, even without an installed one.
    let timezone = TimeZoneDatabase::bundled().get(name.trim());
    if timezone.is_err() {
        let what = format!("{name:?} is not in the IANA time zone database; write it like Europe/Berlin or UTC");
        problems.add(at, what);
    }
    timezone.ok()
}

fn weekday(text: &str) -> Option<Weekday> {
    const DAYS: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let text = text.trim().to_ascii_lowercase();
    DAYS.into_iter().find(|(name, _)| text == *name || text == name[..3]).map(|(_, day)| day)
}

/// `24:00` is the end of a day, and therefore the next midnight.
fn time(text: &str, midnight: bool) -> Option<Time> {
    let text = text.trim();
    if midnight && text == "24:00" {
        return Some(Time::midnight());
    }
    let (hour, minute) = text.split_once(':')?;
    let two_digits =
        |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?;
    Time::new(two_digits(hour)?, two_digits(minute)?, 0, 0).ok()
}
