//! A member's defrags according to its own log, in order: unlike polling, it misses none.

/// The Defragment requests that a member has begun, by its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DefragLog {
    /// How many it has received.
    pub started: usize,
    /// How many ended well.
    pub finished: usize,
    /// How many it answered with an error.
    pub failed: usize,
    /// How many were there at once, at most: one queues behind another and then defragments again.
    pub most_at_once: usize,
}

impl DefragLog {
    /// Reads a log in zap's JSON.
    pub(crate) fn read(log: &str) -> Self {
        let (mut counts, mut open) = (Self::default(), 0);
        for line in log.lines() {
            let says = |message: &str| line.contains(&format!("\"msg\":\"{message}\""));
            if says("starting defragment") {
                counts.started += 1;
                open += 1;
                counts.most_at_once = counts.most_at_once.max(open);
            } else if says("finished defragment") {
                counts.finished += 1;
                open = open.saturating_sub(1);
            } else if says("failed to defragment") {
                counts.failed += 1;
                open = open.saturating_sub(1);
            } else if says("starting an etcd server") {
                open = 0; // What it was at ended with the process before.
            }
        }
        counts
    }
}

/// From when to when a member defragmented, by its log: each with the log's own time, which sorts as text.
pub(crate) fn spans(log: &str) -> Vec<(String, String)> {
    let (mut begun, mut spans) = (None, Vec::new());
    for line in log.lines() {
        let says = |message: &str| line.contains(&format!("\"msg\":\"{message}\""));
        let at =
            || line.split_once("\"ts\":\"").and_then(|(_, rest)| rest.split_once('"')).map(|(at, _)| at.to_owned());
        if says("starting defragment") {
            begun = begun.or_else(at);
        } else if (says("finished defragment") || says("failed to defragment") || says("starting an etcd server"))
            && let (Some(from), Some(to)) = (begun.take(), at())
        {
            spans.push((from, to));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "{\"msg\":\"starting defragment\"}\n";
    const END: &str = "{\"msg\":\"finished defragment\"}\n";
    const BOOT: &str = "{\"msg\":\"starting an etcd server\"}\n";

    #[test]
    fn one_after_the_other_is_one_at_once() {
        let counts = DefragLog::read(&[START, END, START, END].concat());
        assert_eq!(counts, DefragLog { started: 2, finished: 2, failed: 0, most_at_once: 1 });
    }

    #[test]
    fn a_span_goes_from_the_start_to_the_end() {
        let line = |at: &str, msg: &str| format!("{{\"level\":\"info\",\"ts\":\"{at}\",\"msg\":\"{msg}\"}}\n");
        let log = [line("1", "starting defragment"), line("2", "x"), line("3", "finished defragment")].concat();
        assert_eq!(spans(&log), [("1".to_owned(), "3".to_owned())]);
    }

    #[test]
    fn a_queued_one_counts_as_two_at_once_and_a_restart_forgets() {
        assert_eq!(DefragLog::read(&[START, START, END, END].concat()).most_at_once, 2);
        assert_eq!(DefragLog::read(&[START, BOOT, START, END].concat()).most_at_once, 1);
    }
}
