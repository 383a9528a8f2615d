//! Clients' latency during a rolling defragmentation, as a picture: one panel per contender.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::{contender::Contender, load::Kind, trial::Trial};

/// For readers whose pages are dark: a picture in a page follows the page's colour scheme. Rules win over the attributes that
/// are drawn; the colours are those of [`SERIES`], of the background and of the text.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) { \
    [fill=\"#FFFFFF\"] { fill: #1e2129 } [fill=\"#000000\"] { fill: #dddddd } [stroke=\"#000000\"] { stroke: #dddddd } \
    [fill=\"#C86E00\"] { fill: #ffa64d } [fill=\"#005AB4\"] { fill: #6cb6ff } }</style>";
/// What is drawn of the clients that are there.
const SERIES: [(Kind, &str, RGBColor); 5] = [
    (Kind::Put, "puts, through one certain member", ORANGE),
    (Kind::FailoverPut, "puts, failover clients", DEEP_BLUE),
    (Kind::ApiWrite, "writes, through the API server", DEEP_BLUE),
    (Kind::GoPut, "puts, Go client", ORANGE),
    (Kind::CheckedPut, "puts, Go client with health checks", DEEP_BLUE),
];
const ORANGE: RGBColor = RGBColor(0xc8, 0x6e, 0);
const DEEP_BLUE: RGBColor = RGBColor(0, 0x5a, 0xb4);

const WIDTH: u32 = 900;
const PANEL_HEIGHT: u32 = 220;
/// Shorter latencies do not matter, and a logarithmic axis needs a start.
const FLOOR_MS: f64 = 1.0;

/// Draws one trial of each.
pub(crate) fn draw(path: &Path, title: &str, trials: &[(Contender, Trial)]) -> Result<()> {
    let height = PANEL_HEIGHT * u32::try_from(trials.len())? + 40;
    let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(title, ("sans-serif", 18))?;
    let end = trials
        .iter()
        .map(|(_, trial)| trial.window.1.saturating_sub(trial.window.0))
        .max()
        .unwrap_or_default()
        .as_secs_f64();
    let took = |sample: &crate::load::Sample| (sample.took.as_secs_f64() * 1e3).max(FLOOR_MS);
    let most = trials.iter().flat_map(|(_, trial)| trial.clients.samples.iter().map(took)).fold(10.0, f64::max);
    for ((who, trial), panel) in trials.iter().zip(root.split_evenly((trials.len(), 1))) {
        let from = trial.window.0.as_secs_f64();
        let mut chart = ChartBuilder::on(&panel)
            .caption(who.label(), ("sans-serif", 14))
            .margin(6)
            .x_label_area_size(26)
            .y_label_area_size(60)
            .build_cartesian_2d(-2.0..end + 2.0, (FLOOR_MS..most * 1.2).log_scale())?;
        chart.configure_mesh().x_desc("seconds since the tool's start").y_desc("latency, ms").draw()?;
        let spans = trial.defrags.iter().map(|(begin, end)| {
            let (begin, end) = (begin.as_secs_f64() - from, end.as_secs_f64() - from);
            Rectangle::new([(begin, FLOOR_MS), (end, most * 1.2)], RGBColor(120, 120, 120).mix(0.2).filled())
        });
        chart.draw_series(spans)?;
        for (kind, name, colour) in SERIES {
            let mut points = trial.clients.samples.iter().filter(|sample| sample.kind == kind).peekable();
            if points.peek().is_none() {
                continue;
            }
            let dots =
                points.map(|sample| Circle::new((sample.due.as_secs_f64() - from, took(sample)), 2, colour.filled()));
            chart.draw_series(dots)?.label(name).legend(move |(x, y)| Circle::new((x + 8, y), 3, colour.filled()));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    }
    root.present()?;
    drop(root);
    // Right behind the opening tag.
    let svg = std::fs::read_to_string(path)?;
    let (open, rest) = svg.split_once(">\n").context("an SVG without an opening tag")?;
    std::fs::write(path, format!("{open}>\n{DARK}\n{rest}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{load::Sample, trial::example};

    #[test]
    fn each_colour_of_a_series_has_another_on_dark_pages() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("chart.svg");
        for (kind, _, colour) in SERIES {
            let at = Duration::from_secs(2);
            let mut trial = example();
            trial.clients.samples.push(Sample { kind, due: at, took: at, error: String::new() });
            draw(&path, "a title", &[(Contender::Defragd, trial)]).expect("drawn");
            let svg = std::fs::read_to_string(&path).expect("read");
            let fill = format!("fill=\"#{:02X}{:02X}{:02X}\"", colour.0, colour.1, colour.2);
            let (style, drawn) = svg.split_once("</style>").expect("a style");
            assert!(style.contains(&fill) && drawn.contains(&fill), "{fill}: {svg}");
        }
    }
}
