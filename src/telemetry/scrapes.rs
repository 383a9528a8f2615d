//! Requests for pages of metrics: how many, how long they take, how many at once.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::ports::service::ScrapePage;

/// From an idle cluster on loopback to the longest usual scrape timeout.
const BUCKETS_SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

type PageLabel = [(&'static str, &'static str); 1];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    page: &'static str,
    code: u16,
}

super::metrics! {
    /// The metrics about the pages of metrics.
    pub struct Scrapes {
        answered: Family<CodeLabels, Counter> = "scrapes",
            "Requests for metrics, by page and HTTP status; 499 means that the scraper disconnected before the answer";
        duration: Family<PageLabel, Histogram, fn() -> Histogram> = "scrape_duration_seconds",
            "How long requests for metrics took, excluding the current one",
            Family::new_with_constructor(|| Histogram::new(BUCKETS_SECONDS));
        in_flight: Family<PageLabel, Gauge> = "scrapes_in_flight",
            "Requests for metrics under way, including the current one";
    }
}

impl Scrapes {
    pub(super) fn at_zero(registry: &mut Registry) -> Self {
        let scrapes = Self::registered(registry);
        for page in ScrapePage::ALL.map(ScrapePage::label) {
            for code in [200, 503] {
                let _ = scrapes.answered.get_or_create(&CodeLabels { page, code });
            }
            let _ = scrapes.duration.get_or_create(&[("page", page)]);
            let _ = scrapes.in_flight.get_or_create(&[("page", page)]);
        }
        scrapes
    }

    /// A request is being answered.
    pub fn began(&self, page: ScrapePage) {
        self.in_flight.get_or_create(&[("page", page.label())]).inc();
    }

    /// It was answered, or the client disconnected.
    pub fn ended(&self, page: ScrapePage, code: u16, took: Duration) {
        let page = page.label();
        self.in_flight.get_or_create(&[("page", page)]).dec();
        self.answered.get_or_create(&CodeLabels { page, code }).inc();
        self.duration.get_or_create(&[("page", page)]).observe(took.as_secs_f64());
    }
}
