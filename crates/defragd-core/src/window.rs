//! Maintenance windows: when runs may begin.
//!
//! A window is written in local time, and occurs once on each of its days. If the clock is put forward over one of its
//! ends, that end is the moment of the change; if the clock is put back over it, the end is the first of the two. So a
//! window is never open twice a day and never longer than it says plus the change; one that lies wholly within a
//! skipped hour does not occur on that day.

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

/// How far to search for an opening. A window occurs at least weekly, unless a change of the clock skips it.
const HORIZON_DAYS: i32 = 22;

#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// The days on which it opens; none means every day.
    pub days: Vec<Weekday>,
    /// When it opens, in local time.
    pub start: Time,
    /// When it closes. At or before `start`: on the next day.
    pub end: Time,
    pub timezone: TimeZone,
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule(pub Vec<Window>);

impl Schedule {
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
