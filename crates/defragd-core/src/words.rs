//! Numbers, sizes and times as people read them. [`super::story`] is the way to them.

use std::{fmt::Display, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;

/// A size with its unit, like `1.5 GiB`.
pub fn size(size: ByteSize) -> String {
    size.display().iec().to_string()
}

/// A time of day, like `2026-11-29 05:41 UTC`.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// With seconds, like `2026-11-29 05:41:07 UTC`.
pub fn exact_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A time that is still to come, like `2026-11-29 05:41 UTC (in 23 h)`.
pub fn time_to_come(at: Timestamp, now: Timestamp) -> String {
    let minutes = (at.duration_since(now).as_secs().max(0) + 30) / 60;
    let hours = (minutes + 30) / 60;
    let left = match (hours, minutes) {
        (48.., _) => format!("{} days", (hours + 12) / 24),
        (_, 120..) => format!("{hours} h"),
        _ => format!("{minutes} min"),
    };
    format!("{} (in {left})", time(at))
}

/// The text with a capital first letter.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

/// A number with its noun, like `1 snapshot`, `2 snapshots`.
pub fn count<N: Copy + Display + From<u8> + PartialEq>(number: N, noun: &str) -> String {
    let ending = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Like `1 snapshot`, `2 snapshots`.
pub fn snapshots(number: u64) -> String {
    count(number, "snapshot")
}

/// An expected time, like `about 12 s`.
pub fn about_seconds(expected: Duration) -> String {
    match expected.as_secs_f64().round() {
        seconds if seconds < 1.0 => "less than 1 s".to_owned(),
        seconds => format!("about {seconds} s"),
    }
}

/// How much of the expected time is left, like `about 12 s left`; `None` once it is over.
pub fn time_left(expected: Duration, elapsed: Duration) -> Option<String> {
    let left = expected.checked_sub(elapsed)?;
    Some(format!("{} left", about_seconds(left)))
}

/// Like `Measured 3 s ago`; `None` within the first second.
pub fn measured(age: Duration) -> Option<String> {
    (age >= Duration::from_secs(1)).then(|| format!("Measured {} s ago", age.as_secs()))
}

/// Behind what happened: empty if it concerns no one member.
pub(crate) fn on_member(member: Option<&str>) -> String {
    member.map_or(String::new(), |member| format!(" on member {member}"))
}
