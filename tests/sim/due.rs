//! Schedules of defragd, and what each due time must cause: one request within minutes while the process lives, never
//! two. Due times are computed here by counting minutes, not by the program's own search.

use std::{sync::Arc, time::Duration};

use defragd::core::{
    history::{AlertKey, Entry, RunId, RunView, Trigger},
    schedule::{Line, Timetable},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio::time::sleep;

use crate::{
    faults::Schedule,
    journal::{SimJournal, wall_clock},
    model::World,
    rng::Rng,
    sim::Sim,
};

/// What was missed is requested for so long.
const CAUGHT_UP: SignedDuration = SignedDuration::from_mins(55);
const A_DAY: SignedDuration = SignedDuration::from_hours(23);
const LOOK: Duration = Duration::from_secs(15);
/// After the faults: the next due time of a cadence, and the looks until it is missed.
pub const UNTIL_MISSED: Duration = Duration::from_mins(5);
/// defragd looks once a minute, and the journal may be slow.
const MISSED_LOOKS: u32 = 10;

/// When runs are due: each schedule begins at 14:13:20.
#[derive(Clone, Debug)]
pub struct Cadence {
    hours: (i8, i8),
    /// Every so many minutes, or at one of an hour.
    minutes: Result<i8, i8>,
}

impl Cadence {
    fn text(&self) -> String {
        let (first, last) = self.hours;
        match self.minutes {
            Ok(every) => format!("*/{every} {first}-{last} * * *"),
            Err(at) => format!("{at} {first}-{last} * * *"),
        }
    }

    fn is_due(&self, minute: Timestamp) -> bool {
        let time = TimeZone::UTC.to_datetime(minute);
        let (first, last) = self.hours;
        (first..=last).contains(&time.hour())
            && match self.minutes {
                Ok(every) => time.minute() % every == 0,
                Err(at) => time.minute() == at,
            }
    }

    /// The last due time that is still to be caught up.
    fn last(&self, now: Timestamp) -> Option<Timestamp> {
        let minute = Timestamp::from_second(now.as_second().div_euclid(60) * 60).unwrap();
        let back = (0..60).map(|minutes| minute - SignedDuration::from_mins(minutes));
        back.take_while(|due| now.duration_since(*due) < CAUGHT_UP).find(|due| self.is_due(*due))
    }
}

pub fn draw(schedule: &mut Schedule) {
    let mut rng = Rng::new(schedule.seed ^ 0xc407_ab1e);
    if !rng.percent(12) {
        return;
    }
    let minute = i8::try_from(rng.between(14, 18)).unwrap();
    let cadence = match rng.below(4) {
        0 => Cadence { hours: (14, 14), minutes: Ok(1) },
        1 => Cadence { hours: (13, 15), minutes: Ok(2) },
        _ => Cadence { hours: (14, 14), minutes: Err(minute) },
    };
    let line = Line::parse(&cadence.text(), TimeZone::UTC).unwrap();
    schedule.policy.schedule = Timetable(vec![line]);
    schedule.cadence = Some(cadence);
    // Without any alert of its own.
    if rng.percent(40) {
        schedule.requests.truncate(1);
        schedule.requests[0] += Duration::from_secs(600);
        for death in &mut schedule.deaths {
            death.ask_again = None;
            // Over a due time.
            death.down += rng.seconds(60, 200);
        }
    }
}

/// S1: a due time leads to a request, or joins one.
pub async fn is_kept(sim: &Arc<Sim>, journal: &SimJournal) {
    let Some(cadence) = sim.world().schedule.cadence.clone() else { return std::future::pending().await };
    let mut missed = (0, None);
    loop {
        sleep(LOOK).await;
        let (now, can_tell) = {
            let world = sim.world();
            let journal = &world.host().journal;
            let writes = world.now >= journal.down_until && world.now >= journal.reads_down_until;
            (wall_clock(&world), writes && world.clock_is_steady())
        };
        // What was due before the schedule was known is not caught up.
        let known = journal.known_schedule().filter(|_| can_tell);
        let due = cadence.last(now).filter(|due| known.is_some_and(|since| since < *due));
        let due = due.filter(|due| !is_served(journal, *due, now));
        let looks = if due.is_some() && due == missed.1 { missed.0 + 1 } else { 0 };
        missed = (looks, due);
        if let (MISSED_LOOKS.., Some(due)) = missed {
            sim.world().violate("S1", format!("{due} was due, and at {now} nothing is requested"));
        }
    }
}

fn is_served(journal: &SimJournal, due: Timestamp, now: Timestamp) -> bool {
    let serves = |run: &RunView| {
        let ended = run.finished_at.max(run.cancelled_at);
        run.outcome.is_none() || run.accepted_at >= due || ended.is_some_and(|ended| ended >= due)
    };
    let ledger = journal.ledger();
    ledger.runs.iter().any(serves) || ledger.next_attempt(now).is_some()
}

/// S2: a due time is requested once.
pub fn check_once(world: &mut World, run: RunId, entry: &Entry, views: &[RunView]) {
    let newest = |alerts: &[AlertKey]| alerts.iter().filter_map(AlertKey::due).max();
    let Entry::Accepted(request) = entry else { return };
    let Some(due) = newest(&request.alerts).filter(|_| request.trigger == Trigger::Schedule) else { return };
    // Where the clock was set back by more than a day, days come again.
    let again = |other: &Timestamp| (due..due + A_DAY).contains(other);
    if let Some(before) = views.iter().find(|view| newest(&view.request.alerts).as_ref().is_some_and(again)) {
        world.violate("S2", format!("run {run} is requested for {due}, and run {} was", before.id));
    }
}
