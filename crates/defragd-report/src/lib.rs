//! The capacity review of `defragd report`: what a cluster's history says about its future, and how it is written.
//!
//! Pure, like `defragd-core`: no clock, no I/O. Reading order: [`trend`] (how fast a size grows), [`review`] (what that
//! means for a cluster, and what to do), then the formats. `src/app/report.rs` queries Prometheus for the samples.

mod chart;
mod csv;
mod html;
mod markdown;
pub mod review;
#[cfg(test)]
mod tests;
pub mod trend;
mod words;

use std::cmp::Ordering;

use serde::Serialize;
use thiserror::Error;

use review::{Frame, Review};

/// The reviews of all clusters.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The range that was reviewed.
    pub frame: Frame,
    /// The most urgent first.
    pub clusters: Vec<Review>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Markdown,
    Html,
    Csv,
    Json,
}

#[derive(Debug, Error)]
pub enum WriteError {
    #[error("cannot draw the chart of {cluster}: {detail}")]
    Chart { cluster: String, detail: String },
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Report {
    pub fn new(frame: Frame, mut clusters: Vec<Review>) -> Self {
        clusters.sort_by(|a, b| a.urgency().partial_cmp(&b.urgency()).unwrap_or(Ordering::Equal));
        Self { frame, clusters }
    }

    pub fn written(&self, format: Format) -> Result<String, WriteError> {
        Ok(match format {
            Format::Markdown => markdown::page(self),
            Format::Html => html::page(self)?,
            Format::Csv => csv::table(self),
            Format::Json => format!("{:#}\n", serde_json::to_value(self)?),
        })
    }
}
