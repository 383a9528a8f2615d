//! Times, shares and activities for people.

use std::{fmt::Write, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;
use maud::{Markup, html};

pub(super) use crate::core::story::capital;
use crate::{
    core::{explain, reason::Reason, story},
    ports::overview::RunActivity,
};

/// Like `1.5 GiB`, without a line break between number and unit.
pub(super) fn size(size: ByteSize) -> String {
    unbroken(&story::size(size))
}

/// The text without line breaks at its spaces.
pub(super) fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// What to do about a reason; what stands in backticks is a command or a key. Nothing where there is nothing to do.
pub(super) fn to_do(reason: &Reason, cluster: &str) -> Markup {
    reason.to_do().map_or_else(Markup::default, |text| advice(text, cluster))
}

pub(super) fn advice(advice: &str, cluster: &str) -> Markup {
    let advice = explain::for_cluster(advice, cluster);
    html! {
        " What to do: "
        (with_commands(&advice))
    }
}

/// The text; what stands in backticks is a command or a key.
pub(super) fn with_commands(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (command(part)) } } @else { (part) }
        }
    }
}

/// Without line breaks within its flags.
fn command(text: &str) -> Markup {
    html! {
        @for (index, word) in text.split(' ').enumerate() {
            @if index > 0 { " " }
            @if word.starts_with("--") { span.whole { (word) } } @else { (word) }
        }
    }
}

/// What a run in progress does.
pub(super) fn activity(activity: &RunActivity) -> String {
    match activity {
        RunActivity::Checking => "checking that the cluster is healthy before the next step".to_owned(),
        RunActivity::Gates => "checking gates".to_owned(),
        RunActivity::Step { step } => story::about(step),
        RunActivity::Defragmenting { intent } => format!("defragmenting {} ({})", intent.member, story::role(intent)),
        RunActivity::Settling { intent } => {
            format!("{} is defragmented, checking that the cluster stays healthy", intent.member)
        }
        RunActivity::Waiting { reason, .. } => story::waiting(reason),
    }
}

/// How much of the expected time is left, like `about 12 s left`. `elapsed` is since it began.
pub(super) fn time_left(activity: &RunActivity, elapsed: Duration) -> Option<String> {
    let RunActivity::Defragmenting { intent } = activity else { return None };
    intent.expected.and_then(|expected| story::time_left(expected, elapsed))
}

/// Like `42 s`, `3 min`, `2 h 5 min`, `4 d`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    unbroken(&match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min"),
        3_600..86_400 if minutes % 60 == 0 => format!("{hours} h"),
        3_600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d"),
    })
}

/// From one time to a later one; zero if the clock was set back in between.
pub(super) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// In full, in UTC like the log and the command line.
pub(super) fn at(time: Timestamp) -> Markup {
    html! { time datetime=(format!("{time:.0}")) { (story::exact_time(time)) } }
}

/// How long ago it was, with the full time as a tooltip.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> Markup {
    html! {
        time datetime=(format!("{time:.0}")) title=(story::exact_time(time)) {
            (span(between(time, now))) " ago"
        }
    }
}

/// When it will be, and in how long.
pub(super) fn from_now(time: Timestamp, now: Timestamp) -> Markup {
    html! {
        time datetime=(format!("{time:.0}")) title=(story::exact_time(time)) { (story::time(time)) }
        " (in " (span(between(now, time))) ")"
    }
}

/// A share as a percentage, without a fraction unless it is small.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 10.0 { format!("{percent:.1}\u{a0}%") } else { format!("{percent:.0}\u{a0}%") }
}

/// With a separator between thousands, for fleets.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 cluster`, `2 clusters`.
pub(super) fn many(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A segment of a path. Special characters are escaped, so that a link works for any name.
pub(super) fn segment(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_are_short() {
        let table = [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_600, "1 h"), (7_500, "2 h 5 min"), (345_600, "4 d")];
        for (seconds, text) in table {
            assert_eq!(span(Duration::from_secs(seconds)), unbroken(text));
        }
        assert_eq!([count(7), count(1_000), count(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!(size(ByteSize::mib(257)), "257.0\u{a0}MiB");
        assert_eq!([percent(0.0), percent(0.006), percent(0.456)], ["0 %", "0.6 %", "46 %"].map(unbroken));
    }

    #[test]
    fn a_name_with_marks_stays_one_part_of_a_path() {
        assert_eq!(segment("a/b c?<é"), "a%2Fb%20c%3F%3C%C3%A9");
    }
}
