//! Schedules, from the written form.

use jiff::tz::TimeZone;

use super::{raw, validate::Problems, windows};
use crate::core::schedule::{Line, Timetable};

pub(super) fn timetable(at: &str, lines: Vec<raw::ScheduleLine>, problems: &mut Problems) -> Timetable {
    let read = |(index, raw)| line(&format!("{at}[{index}]"), &raw, problems);
    Timetable(lines.into_iter().enumerate().filter_map(read).collect())
}

fn line(at: &str, raw: &raw::ScheduleLine, problems: &mut Problems) -> Option<Line> {
    let timezone = match &raw.timezone {
        Some(name) => windows::timezone(&format!("{at}.timezone"), name, problems),
        None => Some(TimeZone::UTC),
    };
    // Even if the time zone is wrong: every problem is reported at once.
    let line = Line::parse(&raw.cron, timezone.clone().unwrap_or(TimeZone::UTC));
    let line = line.map_err(|error| problems.add(format!("{at}.cron"), format!("{:?} {error}", raw.cron)));
    line.ok().filter(|_| timezone.is_some())
}
