//! `/metrics` and `/probe`: how long a scrape may take, how many are served at once, and the format of the answer.

use std::{
    fmt::{self, Write as _},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::sync::SemaphorePermit;

use super::{
    exposition::ExpositionPage,
    site::{Site, problem},
};
use crate::ports::service::{ProbeRefusal, ProbeRequest, ScrapePage, Service};

/// Prometheus's own default, for scrapers that send no timeout.
const DEFAULT_SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// Prometheus's usual interval is shorter; a longer timeout would only occupy a connection.
const MAX_SCRAPE_TIMEOUT: Duration = Duration::from_secs(120);
/// Members of one cluster; etcd advises against more than seven.
pub(super) const MAX_TARGETS: usize = 16;
/// Longer than a host name with a port can be.
const MAX_TARGET_BYTES: usize = 270;
/// Of a name that becomes a label.
pub(super) const MAX_NAME_BYTES: usize = 200;
/// nginx's number for a client that disconnected before the answer; the metric needs a code.
const GONE: u16 = 499;

pub(super) async fn metrics<S: Service>(State(site): State<Arc<Site<S>>>, headers: HeaderMap) -> Response {
    let scrape = Scrape::begin(&*site.service, ScrapePage::Metrics);
    let answer = match enter(&site) {
        Ok(_permit) => {
            let mut page = wanted(&headers);
            let written = site.service.scrape(site.scrape_reserve.leave(budget(&site, &headers)), &mut page).await;
            let scraped = Instant::now();
            let answer = answer(written.map(drop), page);
            site.scrape_reserve.took(written.unwrap_or_default() + scraped.elapsed());
            answer
        }
        Err(full) => problem(StatusCode::SERVICE_UNAVAILABLE, &full),
    };
    scrape.end(answer)
}

pub(super) async fn probe<S: Service>(
    State(site): State<Arc<Site<S>>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let scrape = Scrape::begin(&*site.service, ScrapePage::Probe);
    let answer = match (enter(&site), asked(query.as_deref().unwrap_or_default())) {
        (Err(full), _) => problem(StatusCode::SERVICE_UNAVAILABLE, &full),
        (_, Err(wrong)) => problem(StatusCode::BAD_REQUEST, &wrong),
        (Ok(_permit), Ok(request)) => match site.service.probe(request, budget(&site, &headers)).await {
            Ok(metrics) => {
                let mut page = wanted(&headers);
                answer(page.write_str(&metrics), page)
            }
            Err(refusal) => problem(status(&refusal), &refusal.to_string()),
        },
    };
    scrape.end(answer)
}

fn status(refusal: &ProbeRefusal) -> StatusCode {
    match refusal {
        ProbeRefusal::UnknownModule { .. } | ProbeRefusal::BadTarget { .. } => StatusCode::BAD_REQUEST,
        ProbeRefusal::NotAllowed { .. } => StatusCode::FORBIDDEN,
        ProbeRefusal::Unusable { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        ProbeRefusal::Full => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The query of a probe. A parameter that is given twice, or is unknown, is a mistake in the relabelling, and must not
/// be answered with something else than what was meant.
fn asked(query: &str) -> Result<ProbeRequest, String> {
    let (mut target, mut module, mut cluster) = (None, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let (slot, limit) = match name.as_ref() {
            "target" => (&mut target, MAX_TARGETS * MAX_TARGET_BYTES),
            "module" => (&mut module, MAX_NAME_BYTES),
            "cluster" => (&mut cluster, MAX_NAME_BYTES),
            _ => return Err("unknown parameter: a probe takes only target, module and cluster".to_owned()),
        };
        if value.len() > limit || value.chars().any(char::is_control) {
            return Err(format!("{name} is longer than {limit} bytes or contains control characters"));
        }
        if slot.replace(value.into_owned()).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let given = |value: Option<String>| value.filter(|value| !value.trim().is_empty());
    let target = given(target)
        .ok_or("missing target: set target=HOST:PORT, several members of one cluster separated by commas")?;
    let module = given(module).ok_or("missing module: set module=NAME, one of `modules` in the configuration")?;
    let targets: Vec<_> = target.split(',').map(|target| target.trim().to_owned()).collect();
    if targets.len() > MAX_TARGETS {
        return Err(format!("{} targets are too many: one cluster may have {MAX_TARGETS}", targets.len()));
    }
    Ok(ProbeRequest { module, targets, cluster: given(cluster) })
}

/// A place among the scrapes that are served at the same time.
fn enter<S>(site: &Site<S>) -> Result<SemaphorePermit<'_>, String> {
    let full = || format!("{} scrapes are already in progress (--web.max-requests)", site.options.max_requests);
    site.scrapes.try_acquire().map_err(|_| full())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// How much time the members have to answer.
fn budget<S>(site: &Site<S>, headers: &HeaderMap) -> Duration {
    let timeout = text(headers, "x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(DEFAULT_SCRAPE_TIMEOUT)
        .min(MAX_SCRAPE_TIMEOUT);
    // If the offset exceeds the timeout, the members still get half of it.
    timeout.saturating_sub(site.options.timeout_offset).max(timeout / 2)
}

/// A page in the format and compression that the scraper accepts.
fn wanted(headers: &HeaderMap) -> ExpositionPage {
    let header = |name| text(headers, name).unwrap_or_default();
    ExpositionPage::new(header("accept"), header("accept-encoding"))
}

/// The written page, or the error.
fn answer(written: fmt::Result, page: ExpositionPage) -> Response {
    let head = [(header::CONTENT_TYPE, page.content_type()), (header::VARY, "Accept, Accept-Encoding")];
    let compressed = page.is_gzip();
    match written.map_err(io::Error::other).and_then(|()| page.finish()) {
        Ok(body) if compressed => (head, [(header::CONTENT_ENCODING, "gzip")], body).into_response(),
        Ok(body) => (head, body).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot format the metrics");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "cannot format the metrics; this is a bug in defragd")
        }
    }
}

/// A scrape in progress. If it is dropped before its end, its client has disconnected.
struct Scrape<'a, S: Service> {
    service: &'a S,
    page: ScrapePage,
    began: Instant,
    code: u16,
}

impl<'a, S: Service> Scrape<'a, S> {
    fn begin(service: &'a S, page: ScrapePage) -> Self {
        service.scrape_began(page);
        Self { service, page, began: Instant::now(), code: GONE }
    }

    fn end(mut self, answer: Response) -> Response {
        self.code = answer.status().as_u16();
        answer
    }
}

impl<S: Service> Drop for Scrape<'_, S> {
    fn drop(&mut self) {
        self.service.scrape_ended(self.page, self.code, self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_what_how_and_nothing_else() {
        let good = asked("module=m&target=10.0.0.1%3A2379,https%3A%2F%2Fb%3A2379&cluster=prod+a").expect("good");
        assert_eq!(good.targets, ["10.0.0.1:2379", "https://b:2379"]);
        assert_eq!((good.module.as_str(), good.cluster.as_deref()), ("m", Some("prod a")));
        assert_eq!(asked("target=a:1&module=m&cluster=").expect("good").cluster, None);
        let many = format!("module=m&target={}", vec!["a:1"; 17].join(","));
        let long = format!("module=m&target={}", "a".repeat(5_000));
        for (query, says) in [
            ("", "target=HOST:PORT"),
            ("module=m", "target=HOST:PORT"),
            ("module=m&target=+", "target=HOST:PORT"),
            ("target=a:1", "module=NAME"),
            ("target=a:1&target=b:1&module=m", "target is given twice"),
            ("target=a:1&module=m&password=x", "only target"),
            ("target=a:1&module=m%0Ax", "control characters"),
            (&long, "longer than"),
            (&many, "17 targets"),
        ] {
            let wrong = asked(query).expect_err(query);
            assert!(wrong.contains(says), "{query}: {wrong}");
        }
    }
}
