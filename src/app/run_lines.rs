//! A run's progress as lines of text: on the terminal of `defragd run`, and kept for clients that follow a run through
//! the API.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::{
    core::{
        cluster::Member,
        gate::GateResult,
        history::{Intent, MemberEnd, MemberResult, RunId, RunStep},
        plan::{Decision, Plan},
        reason::Reason,
        story,
        verify::Verification,
    },
    ports::{clock::Clock, overview::ProgressLine, progress::Progress},
};

/// More than a run has. What comes after that is still in the journal.
const MAX_LINES: usize = 5_000;

/// How often a countdown counts as a line, in seconds.
const COUNTDOWN_LINE_EVERY: u64 = 10;

/// One line of a run's progress.
pub enum RunLine<'a> {
    Text(&'a str),
    /// The next line replaces it, where that is possible.
    Countdown {
        text: &'a str,
        seconds: u64,
    },
}

impl<'a> RunLine<'a> {
    /// What is shown where lines cannot be replaced.
    pub fn kept(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Countdown { text, seconds } => seconds.is_multiple_of(COUNTDOWN_LINE_EVERY).then_some(text),
        }
    }
}

/// The lines of the last run that this process drove.
#[derive(Clone, Default)]
pub(super) struct RunLines(Arc<Mutex<Option<LinesOfRun>>>);

type LinesOfRun = (RunId, Vec<ProgressLine>);

impl RunLines {
    /// Begins with a run, whose lines replace those of the last one.
    pub(super) fn begin(&self, run: RunId, clock: Arc<dyn Clock>) -> TextProgress<impl Fn(RunLine<'_>) + use<>> {
        *self.0.lock() = Some((run, Vec::new()));
        let kept = self.clone();
        TextProgress::new(move |line: RunLine<'_>| {
            if let Some(text) = line.kept() {
                kept.add(run, clock.now(), text);
            }
        })
    }

    fn add(&self, run: RunId, at: Timestamp, text: &str) {
        if let Some((_, lines)) = self.0.lock().as_mut().filter(|(of, lines)| *of == run && lines.len() < MAX_LINES) {
            lines.push(ProgressLine { at, text: text.to_owned() });
        }
    }

    pub(super) fn of(&self, run: RunId) -> Vec<ProgressLine> {
        self.0.lock().as_ref().filter(|(of, _)| *of == run).map(|(_, lines)| lines.clone()).unwrap_or_default()
    }
}

/// Passes each line to `write`, unless it repeats the one before.
pub struct TextProgress<W> {
    last: Mutex<String>,
    write: W,
}

impl<W: Fn(RunLine<'_>)> TextProgress<W> {
    pub fn new(write: W) -> Self {
        Self { last: Mutex::default(), write }
    }

    pub fn line(&self, text: &str) {
        let mut last = self.last.lock();
        if *last != text {
            (self.write)(RunLine::Text(text));
            text.clone_into(&mut last);
        }
    }
}

impl<W: Fn(RunLine<'_>) + Send + Sync> Progress for TextProgress<W> {
    fn versions(&self, known: &[String]) {
        for defect in known {
            self.line(&format!("warning: {defect}"));
        }
    }

    fn planned(&self, plan: &Plan) {
        let order: Vec<_> = plan.pending().map(|(step, _)| step.member.as_str()).collect();
        for step in &plan.steps {
            if let Decision::Skip { reason } = &step.decision {
                self.line(&format!("{} is skipped: {reason}", step.member));
            }
        }
        for warning in &plan.warnings {
            self.line(&format!("warning: {warning}"));
        }
        if !order.is_empty() {
            self.line(&format!("order: {}", order.join(", ")));
        }
    }

    fn step(&self, step: &RunStep) {
        self.line(&story::about(step));
    }

    fn defragmenting(&self, intent: &Intent) {
        self.line(&format!(
            "defragmenting {} ({}): {}, of which {} in use{}",
            intent.member,
            story::role(intent),
            story::size(intent.before.db_size),
            story::size(intent.before.db_size_in_use),
            intent.expected.map_or(String::new(), |expected| format!("; expected {}", story::about_seconds(expected)))
        ));
    }

    fn still_defragmenting(&self, intent: &Intent, elapsed: Duration) {
        let left = intent.expected.and_then(|expected| story::time_left(expected, elapsed));
        let left = left.map_or(String::new(), |left| format!(", {left}"));
        self.line(&format!("still defragmenting {}, {} s so far{left}", intent.member, elapsed.as_secs()));
    }

    fn settling(&self, healthy_for: Duration, pause: Duration) {
        let (seconds, of) = (healthy_for.as_secs(), pause.as_secs());
        let text = format!("checking that the cluster stays healthy ({seconds} of {of} s)");
        (self.write)(RunLine::Countdown { text: &text, seconds });
    }

    fn gate(&self, result: &GateResult) {
        self.line(&story::gate(result));
    }

    fn hashing(&self, member: &Member) {
        self.line(&format!("comparing the members' data: waiting for the hash of {}", member.label()));
    }

    fn verified(&self, verification: &Verification) {
        self.line(&story::verified(verification));
    }

    fn waiting(&self, reason: &Reason) {
        self.line(&story::waiting(&reason.to_string()));
    }

    fn fell_back(&self, reason: &Reason) {
        self.line(&format!("leadership is not transferred, the leader is defragmented as it is: {reason}"));
    }

    fn member_ended(&self, result: &MemberResult) {
        let name = &result.intent.member;
        match &result.end {
            MemberEnd::Defragmented { after, took, unavailable } => self.line(&format!(
                "{name} defragmented: {} -> {} {}, the cluster is healthy",
                story::size(result.intent.before.db_size),
                story::size(after.db_size),
                story::duration(*took, *unavailable)
            )),
            MemberEnd::Failed { reason, .. } => self.line(&format!("{name} failed: {reason}")),
            MemberEnd::Unconfirmed { .. } => {
                self.line(&format!("{name} is idle; an earlier process was defragmenting it"));
            }
            MemberEnd::NotSent { reason } => self.line(&format!("{name} was not started: {reason}")),
        }
    }
}
