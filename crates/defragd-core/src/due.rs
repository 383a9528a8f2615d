//! Which due times of a schedule need no request any more.

use jiff::Timestamp;

use super::{
    admission::DAY,
    history::{AlertKey, RunView},
    ledger::{Ledger, has_been},
};

impl Ledger {
    /// Whether a due time needs no request any more: one was made for it, it joined one, or the cluster was observed
    /// since.
    ///
    /// A clock that is set back by less than a day repeats none. If it is set back further, what the journal contains
    /// is in the future and is ignored: the schedule must not rest until that time comes again.
    pub fn is_decided(&self, due: Timestamp, now: Timestamp) -> bool {
        let inherited = self.inherited.as_ref().and_then(|inherited| inherited.scheduled_until);
        self.deciding(due, now).next().is_some() || inherited.is_some_and(|until| counts(until, due, now))
    }

    /// The runs of this journal that decide a due time, oldest first.
    pub(super) fn deciding(&self, due: Timestamp, now: Timestamp) -> impl Iterator<Item = &RunView> {
        // Its own request counts, whatever the clock said at its end.
        let own = AlertKey::of_schedule(due);
        let decides = move |run: &&RunView| {
            run.request.alerts.contains(&own) || run.decides_until().any(|until| counts(until, due, now))
        };
        self.runs.iter().filter(decides)
    }
}

/// Whether all due times until then are decided, this one among them.
fn counts(until: Timestamp, due: Timestamp, now: Timestamp) -> bool {
    due <= until && (has_been(until, now) || until.checked_sub(DAY).is_ok_and(|before| before <= due))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Entry, Outcome, Record, Request, RunId, Trigger},
        note::SuccessionNote,
        reason::Reason,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn run(accepted: &str, alerts: Vec<AlertKey>, ended: Option<(&str, Outcome)>) -> RunView {
        let request = Request { cluster: "a".to_owned(), trigger: Trigger::Schedule, alerts, members: Vec::new() };
        let record = |time: &str, entry| Record { run: RunId(1), at: at(time), entry };
        let end = ended.map(|(time, outcome)| record(time, Entry::Finished(outcome)));
        RunView::fold([record(accepted, Entry::Accepted(request))].into_iter().chain(end)).remove(0)
    }

    fn ledger(runs: Vec<RunView>) -> Ledger {
        Ledger { runs, ..Ledger::default() }
    }

    fn due_at(time: &str) -> Vec<AlertKey> {
        vec![AlertKey::of_schedule(at(time))]
    }

    #[test]
    fn a_due_time_is_decided_by_its_own_run_by_one_it_came_in_and_by_a_later_look() {
        let (three, four) = (at("2026-11-29T03:00:00Z"), at("2026-11-29T04:00:00Z"));
        let now = at("2026-11-29T04:10:00Z");
        let refused = || Outcome::Refused { reason: Reason::CorruptAlarm };
        let own = ledger(vec![run("2026-11-29T03:00:01Z", due_at("2026-11-29T03:00:00Z"), None)]);
        assert!(own.is_decided(three, now));
        assert!(!own.is_decided(four, now));
        let long = Some(("2026-11-29T04:05:00Z", refused()));
        let during = ledger(vec![run("2026-11-29T03:00:01Z", due_at("2026-11-29T03:00:00Z"), long)]);
        assert!(during.is_decided(four, now));
        let alert = || vec![AlertKey::new("f1".to_owned(), "2026-11-29T02:00:00Z")];
        let later =
            |outcome| ledger(vec![run("2026-11-29T03:30:00Z", alert(), Some(("2026-11-29T03:31:00Z", outcome)))]);
        assert!(later(Outcome::NothingToDo).is_decided(three, now), "measured since");
        let forwarded = Outcome::Stopped { reason: Reason::Resolved };
        assert!(!later(forwarded).is_decided(three, now), "nothing was looked at");
        assert!(!later(Outcome::NothingToDo).is_decided(four, now));
        let mut withdrawn =
            run("2026-11-29T03:00:01Z", due_at("2026-11-29T03:00:00Z"), Some(("2026-11-29T03:01:00Z", refused())));
        withdrawn.cancelled_at = Some(at("2026-11-29T04:01:00Z"));
        assert!(ledger(vec![withdrawn]).is_decided(four, now), "what joined a request is withdrawn with it");
    }

    #[test]
    fn a_clock_that_is_set_back_repeats_nothing_and_one_that_was_far_ahead_stops_nothing() {
        let own = || {
            ledger(vec![run(
                "2026-11-29T03:00:01Z",
                due_at("2026-11-29T03:00:00Z"),
                Some(("2026-11-29T03:05:00Z", Outcome::Succeeded)),
            )])
        };
        for now in ["2026-11-29T03:00:30Z", "2026-11-29T03:10:00Z"] {
            assert!(own().is_decided(at("2026-11-29T03:00:00Z"), at(now)), "{now}");
        }
        // The clock was days ahead only when its run ended.
        let ahead = Some(("2026-12-02T03:05:00Z", Outcome::Succeeded));
        let ahead = ledger(vec![run("2026-11-29T03:00:01Z", due_at("2026-11-29T03:00:00Z"), ahead)]);
        assert!(ahead.is_decided(at("2026-11-29T03:00:00Z"), at("2026-11-29T03:10:00Z")));
        assert!(
            ahead.is_decided(at("2026-11-29T02:30:00Z"), at("2026-11-29T02:30:30Z")),
            "and half an hour at its start"
        );
        // Set back by half an hour, the hour before is not served again either.
        assert!(own().is_decided(at("2026-11-29T02:00:00Z"), at("2026-11-29T02:30:00Z")));
        assert!(!own().is_decided(at("2026-11-20T03:00:00Z"), at("2026-11-20T03:00:00Z")), "nine days ahead");
    }

    #[test]
    fn the_next_lock_holder_knows_what_is_decided() {
        let own = ledger(vec![run(
            "2026-11-29T03:00:01Z",
            due_at("2026-11-29T03:00:00Z"),
            Some(("2026-11-29T03:05:00Z", Outcome::NothingToDo)),
        )]);
        let note = own.digest().write("one", crate::lock::Term(1), None, None);
        let digest = SuccessionNote::read(&note).expect("ours").not_after(at("2026-11-29T03:10:00Z"));
        let heir = Ledger { inherited: Some(digest), ..Ledger::default() };
        assert!(heir.is_decided(at("2026-11-29T03:00:00Z"), at("2026-11-29T03:10:00Z")));
        assert!(!heir.is_decided(at("2026-11-29T03:10:00Z"), at("2026-11-29T03:10:00Z")));
    }
}
