//! Shows progress on a terminal, with the time since the start.
//!
//! The lines go through a thread of their own: a terminal that is paused, or a pipe without a reader, must
//! neither delay a run nor end it.

use std::{
    io::{IsTerminal, Write},
    sync::mpsc::{SyncSender, sync_channel},
    time::Duration,
};

use tokio::time::Instant;

use crate::app::run_lines::RunLine;

/// A terminal that takes no line for so long is paused, and not waited for.
const TAKES_NOTHING: Duration = Duration::from_secs(5);

pub(super) struct Terminal {
    begun: Instant,
    lines: SyncSender<Line>,
    /// Whether a line can be replaced by the next one.
    replaces: bool,
}

enum Line {
    Text(String),
    /// Shown until the next line replaces it.
    Fleeting(String),
    /// Answer once everything before it is written.
    Flush(SyncSender<()>),
}

/// More lines than a run has; lines beyond that are dropped instead of waiting.
const LINES_IN_HAND: usize = 1_000;

/// Moves to the beginning of a terminal's line, and clears it.
const CLEAR_LINE: &str = "\r\x1b[K";

impl Terminal {
    pub(super) fn start() -> Self {
        let (lines, to_write) = sync_channel(LINES_IN_HAND);
        std::thread::spawn(move || {
            let mut clear = "";
            for line in to_write {
                let before = std::mem::take(&mut clear);
                // If nobody reads any more, the journal still has everything.
                let _ = match line {
                    Line::Text(text) => writeln!(std::io::stderr(), "{before}{text}").ok(),
                    Line::Fleeting(text) => {
                        clear = CLEAR_LINE;
                        write!(std::io::stderr(), "{before}{text}").ok()
                    }
                    Line::Flush(answer) => {
                        let _ = write!(std::io::stderr(), "{before}");
                        answer.try_send(()).ok()
                    }
                };
            }
        });
        Self { begun: Instant::now(), lines, replaces: std::io::stderr().is_terminal() }
    }

    /// Waits for queued lines, so that the result comes after them.
    pub(super) fn flush(&self) {
        let (answer, written) = sync_channel(1);
        if self.lines.try_send(Line::Flush(answer)).is_ok() {
            let _ = written.recv_timeout(TAKES_NOTHING);
        }
    }

    pub(super) fn write(&self, line: RunLine<'_>) {
        let timed = |text: &str| format!("[{:6.1} s] {text}", self.begun.elapsed().as_secs_f64());
        let line = match line {
            RunLine::Countdown { text, .. } if self.replaces => Some(Line::Fleeting(timed(text))),
            line => line.kept().map(|text| Line::Text(timed(text))),
        };
        if let Some(line) = line {
            let _ = self.lines.try_send(line);
        }
    }
}
