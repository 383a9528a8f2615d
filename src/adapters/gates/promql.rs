//! A query of Prometheus, or of a service with its API, and its expected result.

use std::{collections::BTreeMap, time::Instant};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::Method;
use serde_json::{Value, json};

use super::{failure, millis};
use crate::{
    adapters::outgoing::{
        CallError, ClientSettings, Heard, Remote, UrlSource, excerpt,
        prometheus::{self, Data, number},
        shown,
    },
    core::{
        expect::{SampleVerdict, Samples},
        story,
    },
    ports::gate::{CheckContext, GateProbe, PromqlGate, Reading, Tries},
};

/// Some ten thousand samples. A query with a longer result is not a check.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Enough to know where to look.
const MAX_SHOWN_SAMPLES: usize = 5;

#[derive(Clone, Debug)]
pub(super) struct PromqlProbe {
    url: UrlSource,
    remote: Remote,
    query: String,
    expect: Samples,
    tries: Tries,
}

/// A sample with its labels in Prometheus's own notation.
struct Sample {
    series: String,
    value: f64,
}

impl PromqlProbe {
    /// Checks that its files are usable.
    pub(super) fn new(check: PromqlGate) -> Result<Self, CallError> {
        let access = ClientSettings::new(check.credentials(), check.tls.clone(), check.timeout);
        let source = UrlSource::new(check.url.as_ref(), check.url_file.as_ref(), &check.tls);
        let url = source.read()?;
        access.try_files(&url)?;
        let remote = Remote::new(url.as_str(), access, MAX_ANSWER_BYTES)?;
        Ok(Self { url: source, remote, tries: check.tries(), query: check.query, expect: check.expect })
    }

    async fn once(&self) -> Reading {
        let began = Instant::now();
        let asked = async {
            let remote = self.remote.at_secret(self.url.current(self.tries.timeout).await?);
            let mut url = remote.url("api/v1/query")?;
            // So that Prometheus gives up when we do.
            let limit = format!("{}ms", self.tries.timeout.as_millis());
            url.query_pairs_mut().append_pair("query", &self.query).append_pair("timeout", &limit);
            let heard = remote.call(Method::GET, &url, None).await?;
            Ok((shown(&url), heard))
        };
        match asked.await {
            Ok((url, heard)) => self.judge(heard).with("url", url).with("latency_ms", millis(began.elapsed())),
            Err(error) => failure(&error, began),
        }
    }

    fn judge(&self, heard: Heard) -> Reading {
        let Heard { json, secrets } = heard;
        let clean = |text: &str| excerpt(&secrets.mask(text));
        let samples = match samples(json) {
            Ok(samples) => samples,
            Err(what) => return Reading::fail(format!("the answer to the query {}", clean(&what))),
        };
        let values: Vec<_> = samples.iter().map(|sample| sample.value).collect();
        let count = samples.len();
        let reading = match self.expect.judge(&values) {
            SampleVerdict::Met => {
                let samples = story::count(count, "sample");
                Reading::pass(format!("the query returned {samples}, as expected: {}", self.expect))
            }
            SampleVerdict::Missing => {
                Reading::fail(format!("the query returned nothing, but must return {}", self.expect))
            }
            SampleVerdict::Unmet(bad) => {
                let shown: Vec<_> = bad.iter().take(MAX_SHOWN_SAMPLES).map(|index| &samples[*index]).collect();
                let words: Vec<_> =
                    shown.iter().map(|sample| format!("{} is {}", sample.series, sample.value)).collect();
                let detail =
                    format!("{} of {} not as expected ({}): ", bad.len(), story::count(count, "sample"), self.expect);
                let evidence: Vec<_> = shown
                    .iter()
                    .map(|sample| json!({"series": clean(&sample.series), "value": sample.value.to_string()}))
                    .collect();
                Reading::fail(detail + &clean(&words.join(", "))).with("failing_samples", evidence)
            }
        };
        reading.with("samples", count)
    }
}

/// The samples of a complete answer, or what is wrong with it.
fn samples(json: Value) -> Result<Vec<Sample>, String> {
    match prometheus::data(json)? {
        Data::Matrix(_) | Data::String(_) => Err("is not an instant vector: the query must return one".to_owned()),
        Data::Scalar((_, value)) => Ok(vec![Sample { series: "the scalar".to_owned(), value: number(&value)? }]),
        Data::Vector(series) => series
            .into_iter()
            .map(|series| {
                // A histogram satisfies no threshold.
                let value = series.value.as_ref().map_or(Ok(f64::NAN), |(_, value)| number(value))?;
                Ok(Sample { series: notation(&series.metric), value })
            })
            .collect(),
    }
}

fn notation(labels: &BTreeMap<String, String>) -> String {
    let name = labels.get("__name__").map_or("", String::as_str);
    let others = labels.iter().filter(|(key, _)| *key != "__name__").map(|(key, value)| format!("{key}={value:?}"));
    format!("{name}{{{}}}", others.collect::<Vec<_>>().join(","))
}

impl GateProbe for PromqlProbe {
    fn check<'a>(&'a self, _: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        self.tries.run(|| self.once()).boxed()
    }
}
