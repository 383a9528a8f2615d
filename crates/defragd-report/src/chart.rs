//! A cluster's sizes over time with a forecast, as SVG. The colours are readable on a light and a dark background.

use jiff::Timestamp;
use plotters::prelude::*;

use crate::{
    WriteError,
    review::{Forecast, Frame, Moment, Review},
    trend::DAY,
};

/// The names of the lines, for the legend.
pub(crate) const KEYS: [(&str, &str); 3] = [("quota", "#d6455d"), ("file", "#8073d6"), ("in use", "#1a936f")];
pub(crate) const FORECAST: &str = "#d98e1f";

/// Text shrinks with its chart, so each width has a chart of its own.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    Wide,
    Narrow,
}

/// Seconds between two labels of the time axis: the first of which few enough fit.
const TICKS: [i64; 17] = {
    const HOUR: i64 = 3_600;
    const DAY: i64 = 24 * HOUR;
    [
        HOUR,
        2 * HOUR,
        3 * HOUR,
        6 * HOUR,
        12 * HOUR,
        DAY,
        2 * DAY,
        4 * DAY,
        7 * DAY,
        10 * DAY,
        15 * DAY,
        30 * DAY,
        60 * DAY,
        90 * DAY,
        180 * DAY,
        365 * DAY,
        730 * DAY,
    ]
};
const UNITS: [(&str, f64); 4] =
    [("TiB", 1_099_511_627_776.0), ("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1_024.0)];
/// More points than are visible at this width.
const MAX_POINTS: usize = 900;
const DIM: RGBColor = RGBColor(128, 133, 141);

/// When the size in use reaches the quota.
pub(crate) struct Arrival {
    /// In seconds since 1970.
    pub(crate) at: i64,
    pub(crate) days: f64,
    quota: f64,
}

/// The fullest member's file size, size in use and quota, and the forecast: until the quota if that is within a further
/// range, else for a third of it.
pub(crate) fn sizes(review: &Review, frame: Frame, layout: Layout) -> Result<String, WriteError> {
    let (size, labels, font) = match layout {
        Layout::Wide => ((1_120, 320), 8, 14),
        Layout::Narrow => ((360, 260), 4, 12),
    };
    let lines: [fn(&Moment) -> Option<f64>; 3] =
        [|moment| moment.quota_bytes, |moment| moment.size_bytes, |moment| Some(moment.in_use_bytes)];
    let future = future(review, frame);
    let values = review.history.iter().flat_map(|(_, moment)| lines.iter().filter_map(|line| line(moment)));
    let top = values.fold(0.0, f64::max).max(1_024.0) * 1.05;
    let (unit, scale) = UNITS.into_iter().find(|(_, scale)| top >= *scale).unwrap_or(("KiB", 1_024.0));
    let end = future.last().map_or(frame.to, |(at, _)| *at).max(frame.from + 1);
    let (ticks, between) = ticks(frame.from, end, labels);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| WriteError::Chart {
            cluster: review.cluster.clone(),
            detail: error.to_string(),
        };
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            // Half of a label at the edge.
            .margin_right(3 * font)
            .x_label_area_size(2 * font)
            .y_label_area_size(5 * font)
            .build_cartesian_2d((frame.from..end).with_key_points(ticks), 0.0..top / scale)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(DIM.mix(0.3))
            .axis_style(DIM)
            .label_style(("sans-serif", font).into_font().color(&DIM))
            .y_labels(5)
            .x_label_formatter(&|at| tick(*at, between, layout))
            .y_label_formatter(&|value| format!("{} {unit}", (value * 1e3).round() / 1e3))
            .draw()
            .map_err(|error| failed(&error))?;
        let stride = review.history.len() / MAX_POINTS + 1;
        for (line, (_, colour)) in lines.into_iter().zip(KEYS) {
            let points = review.history.iter().step_by(stride).filter_map(|(at, m)| Some((*at, line(m)? / scale)));
            let points: Vec<_> = points.collect();
            // Draw no line across a gap.
            let hole = review.gaps.over_seconds + frame.step * i64::try_from(stride).unwrap_or(1);
            for part in points.chunk_by(|a, b| b.0 - a.0 <= hole) {
                let series = LineSeries::new(part.iter().copied(), rgb(colour).stroke_width(2));
                chart.draw_series(series).map_err(|error| failed(&error))?;
            }
        }
        if let Some(Arrival { quota, .. }) = arrival(review, frame) {
            let ahead = [(KEYS[0].1, future.iter().map(|(at, _)| (*at, quota)).collect()), (FORECAST, future)];
            for (colour, points) in ahead {
                let points = points.into_iter().map(|(at, bytes)| (at, bytes / scale));
                let series = LineSeries::new(points, rgb(colour).stroke_width(2));
                chart.draw_series(series).map_err(|error| failed(&error))?;
            }
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

/// `None` without growth, and if the quota is reached already.
#[expect(clippy::cast_possible_truncation, reason = "seconds of some years")]
pub(crate) fn arrival(review: &Review, frame: Frame) -> Option<Arrival> {
    match review.forecast {
        Forecast::Growing { days_to_quota: days, .. } if days > 0.0 => {
            Some(Arrival { at: frame.to + (days * DAY) as i64, days, quota: review.now.quota_bytes? })
        }
        _ => None,
    }
}

/// The two ends of the forecast's line.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "seconds of some years")]
fn future(review: &Review, frame: Frame) -> Vec<(i64, f64)> {
    let Some(arrival) = arrival(review, frame) else { return Vec::new() };
    let (range, now) = ((frame.to - frame.from) as f64 / DAY, review.now.in_use_bytes);
    let days = if arrival.days <= range { arrival.days } else { range / 3.0 };
    let bytes = now + (arrival.quota - now) * days / arrival.days;
    vec![(frame.to, now), (frame.to + (days * DAY) as i64, bytes)]
}

/// Round times with the seconds between them: no more labels than this, so that they do not touch.
fn ticks(from: i64, to: i64, most: i64) -> (Vec<i64>, i64) {
    let between = TICKS.into_iter().find(|ticks| to - from <= most * ticks).unwrap_or((to - from) / most);
    let first = from + (-from).rem_euclid(between);
    (std::iter::successors(Some(first), |at| Some(at + between)).take_while(|at| *at <= to).collect(), between)
}

fn tick(at: i64, between: i64, layout: Layout) -> String {
    let format = match layout {
        _ if between < 86_400 => "%m-%d %H:%M",
        Layout::Narrow if between < 90 * 86_400 => "%m-%d",
        _ => "%Y-%m-%d",
    };
    Timestamp::from_second(at).map_or_else(|_| "?".to_owned(), |time| time.strftime(format).to_string())
}

fn rgb(hex: &str) -> RGBColor {
    let part = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default();
    RGBColor(part(1), part(3), part(5))
}
