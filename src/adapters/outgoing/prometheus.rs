//! Prometheus' API, or that of a compatible service: its answers, and ranges of any length.
//!
//! A range is queried in parts: Prometheus refuses more than 11,000 points per series, and parts show progress.

use std::{collections::BTreeMap, ops::RangeInclusive};

use reqwest::Method;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{CallError, ClientSettings, Remote, excerpt, shown};

/// Hundreds of members over a part.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Of each series in a part; far below the 11,000 that Prometheus allows, for small answers and frequent progress.
const MAX_PIECE_POINTS: i64 = 1_000;
/// Some 800 MiB in memory: beyond that, the range must be shorter or the step longer.
const MAX_SAMPLES: usize = 50_000_000;

pub type SeriesLabels = BTreeMap<String, String>;
/// Series by their labels; their samples by seconds since 1970.
pub type RangeSeries = BTreeMap<SeriesLabels, Vec<(i64, f64)>>;

/// The times of a range query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The first, in seconds since 1970.
    pub start: i64,
    /// Not before `from`.
    pub end: i64,
    /// The seconds in between, at least 1.
    pub step: i64,
}

impl Grid {
    /// The number of parts in which it is queried.
    pub fn pieces(self) -> usize {
        self.split().count()
    }

    fn split(self) -> impl Iterator<Item = RangeInclusive<i64>> {
        let reach = self.step * MAX_PIECE_POINTS;
        let begins = (0..).map(move |piece| self.start + piece * reach).take_while(move |begin| *begin <= self.end);
        begins.map(move |begin| begin..=self.end.min(begin + reach - self.step))
    }
}

/// A Prometheus for range queries.
#[derive(Clone, Debug)]
pub struct Prometheus {
    remote: Remote,
}

/// The `data` of a successful answer.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "snake_case")]
pub(in crate::adapters) enum Data {
    Vector(Vec<Instant>),
    Scalar((Value, String)),
    String(IgnoredAny),
    Matrix(Vec<Range>),
}

/// A series of an instant query.
#[derive(Deserialize)]
pub(in crate::adapters) struct Instant {
    #[serde(default)]
    pub(in crate::adapters) metric: SeriesLabels,
    /// Absent for histograms.
    pub(in crate::adapters) value: Option<(Value, String)>,
}

/// A series of a range query.
#[derive(Deserialize)]
pub(in crate::adapters) struct Range {
    #[serde(default)]
    metric: SeriesLabels,
    /// Absent for histograms.
    #[serde(default)]
    values: Vec<(f64, String)>,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
    #[serde(default)]
    warnings: Vec<String>,
}

impl Prometheus {
    /// Checks the URL and all files. Blocks while they are read.
    pub fn new(url: &str, access: ClientSettings) -> Result<Self, CallError> {
        let remote = Remote::new(url, access, MAX_ANSWER_BYTES)?;
        remote.access.try_files(&remote.base)?;
        Ok(Self { remote })
    }

    /// The samples of a query on the grid; `piece_done` is called after each part. Values that are not numbers are
    /// skipped.
    pub async fn range(&self, query: &str, grid: Grid, mut piece_done: impl FnMut()) -> Result<RangeSeries, CallError> {
        let mut all = RangeSeries::new();
        let mut samples = 0;
        for piece in grid.split() {
            let mut url = self.remote.url("api/v1/query_range")?;
            url.query_pairs_mut()
                .append_pair("query", query)
                .append_pair("start", &piece.start().to_string())
                .append_pair("end", &piece.end().to_string())
                .append_pair("step", &grid.step.to_string());
            let heard = self.remote.call(Method::GET, &url, None).await?;
            let bad = |what: &str| CallError::NotUnderstood {
                url: shown(&url),
                detail: excerpt(&heard.secrets.mask(&format!("the answer to {query} {what}"))),
            };
            let Data::Matrix(ranges) = data(heard.json).map_err(|what| bad(&what))? else {
                return Err(bad("is not a range"));
            };
            for range in ranges {
                let values = points(&range.values).map_err(|what| bad(&what))?;
                samples += values.len();
                all.entry(range.metric).or_default().extend(values);
            }
            if samples > MAX_SAMPLES {
                return Err(bad(&format!(
                    "has more than {MAX_SAMPLES} samples: choose a shorter range, a longer step or one cluster"
                )));
            }
            piece_done();
        }
        Ok(all)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds since 1970")]
fn points(values: &[(f64, String)]) -> Result<Vec<(i64, f64)>, String> {
    let mut points = Vec::with_capacity(values.len());
    for (at, text) in values {
        let value = number(text)?;
        if value.is_finite() {
            points.push((at.round() as i64, value));
        }
    }
    Ok(points)
}

pub(in crate::adapters) fn number(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| format!("has the invalid value {text:?}"))
}

/// The data of a complete answer, or what is wrong with it.
pub(in crate::adapters) fn data(json: Value) -> Result<Data, String> {
    let answer: Answer = serde_json::from_value(json).map_err(|error| format!("cannot be parsed: {error}"))?;
    if answer.status != "success" {
        return Err(format!("has the status {}: {}", answer.status, answer.error));
    }
    // A warning says that data may be missing. Before 2.54, infos were among them.
    if let Some(warning) = answer.warnings.iter().find(|warning| !warning.starts_with("PromQL info")) {
        return Err(format!("has a warning, so it may be incomplete: {warning}"));
    }
    answer.data.ok_or_else(|| "has no data".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_grid_is_split_into_pieces_that_meet_and_do_not_overlap() {
        let grid = Grid { start: 100, end: 100 + 2_500 * 60, step: 60 };
        let pieces: Vec<_> = grid.split().map(RangeInclusive::into_inner).collect();
        assert_eq!(pieces, [(100, 60_040), (60_100, 120_040), (120_100, 150_100)]);
        let times: usize = pieces.iter().map(|(a, b)| (*a..=*b).step_by(60).count()).sum();
        assert_eq!((times, grid.pieces()), (2_501, 3));
        assert_eq!(Grid { start: 5, end: 5, step: 1 }.pieces(), 1);
    }

    #[test]
    fn an_answer_that_may_not_be_whole_is_refused_with_its_reason() {
        let table = [
            (json!({"status": "error", "error": "too many"}), "status error: too many"),
            (json!({"status": "success"}), "no data"),
            (json!({"status": "success", "warnings": ["a store is away"]}), "may be incomplete: a store is away"),
            (json!([]), "cannot be parsed"),
        ];
        for (json, expected) in table {
            let error = data(json).err().expect("refused");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn samples_that_are_no_number_are_left_out_and_nonsense_is_refused() {
        let values = [(10.0, "1.5"), (20.0, "NaN"), (30.0, "+Inf"), (40.0, "2e3")].map(|(at, v)| (at, v.to_owned()));
        assert_eq!(points(&values), Ok(vec![(10, 1.5), (40, 2_000.0)]));
        assert!(points(&[(10.0, "many".to_owned())]).is_err());
    }
}
