//! The runs of a cluster along a line of time.

use jiff::Timestamp;
use maud::{Markup, html};

use super::{runs, words};
use crate::core::history::RunView;

/// Of the picture, in units of its `viewBox`; the style sheet stretches it.
const WIDTH: f64 = 1_000.0;
/// A shorter run would not be seen.
const LEAST_WIDTH: f64 = 5.0;

/// Nothing for fewer than two runs.
pub(super) fn timeline(runs: &[RunView], now: Timestamp) -> Markup {
    let Some(start) = runs.iter().map(|run| run.accepted_at).min().filter(|_| runs.len() > 1) else {
        return html! {};
    };
    let span = words::between(start, now).as_secs_f64().max(1.0);
    let x = |time: Timestamp| words::between(start, time).as_secs_f64() / span * (WIDTH - LEAST_WIDTH);
    html! {
        figure.timeline {
            svg role="img" aria-label={ "The last " (runs.len()) " runs along a line of time; the table has the same" } viewBox=(format!("0 0 {WIDTH} 24")) preserveAspectRatio="none" focusable="false" {
                line x1="0" x2=(WIDTH) y1="12" y2="12" {}
                @for run in runs.iter().rev() {
                    @let from = x(run.started_at.unwrap_or(run.accepted_at));
                    @let to = x(run.finished_at.unwrap_or(now));
                    rect class=(runs::class(run)) x=(format!("{from:.1}")) y="3" width=(format!("{:.1}", (to - from).max(LEAST_WIDTH))) height="18" {
                        title { "Run " (run.id) ": " (runs::state(run)) }
                    }
                }
            }
            figcaption { span { (words::ago(start, now)) } span { "now" } }
        }
    }
}
