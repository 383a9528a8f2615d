//! A real Alertmanager on a free port, without its cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::process::Process;
use crate::{Port, Tools, http};

const READY: Duration = Duration::from_secs(30);

/// A running Alertmanager. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Alertmanager {
    url: String,
    http: reqwest::Client,
    process: Process,
    _dir: TempDir,
}

/// An alert as Alertmanager has it.
#[derive(Debug, Clone, Deserialize)]
pub struct PostedAlert {
    /// Its labels, with `alertname`.
    pub labels: BTreeMap<String, String>,
    /// Its identity.
    pub fingerprint: String,
    /// When it began, RFC 3339.
    #[serde(rename = "startsAt")]
    pub starts_at: String,
}

impl Alertmanager {
    /// Starts it with this configuration (YAML; paths in it absolute), logging to a file, and waits until it is ready.
    pub async fn start(tools: &Tools, config: &str, log: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("defragd-alertmanager-").tempdir()?;
        let file = dir.path().join("alertmanager.yml");
        fs::write(&file, config)?;
        let mut port = Port::reserve()?;
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={}", port.address()),
            "--cluster.listen-address=".to_owned(), // no gossip: it would listen on every address
        ];
        let url = format!("http://{}", port.address());
        port.release();
        let process = Process::spawn("alertmanager", &tools.alertmanager(), &args, &[], log)?;
        let http = http::client(None)?;
        process.ready(READY, || async { http::get(&http, &format!("{url}/-/ready")).await }).await?;
        Ok(Self { url, http, process, _dir: dir })
    }

    /// Where it serves.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its address without the scheme, as Prometheus' configuration needs it.
    pub fn target(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// The alerts that it has now.
    pub async fn alerts(&self) -> Result<Vec<PostedAlert>> {
        let text = http::get(&self.http, &format!("{}/api/v2/alerts", self.url)).await?;
        serde_json::from_str(&text).with_context(|| format!("Alertmanager answered {text}"))
    }

    /// Gives it alerts as Prometheus would: a JSON array of objects with `labels`.
    pub async fn post(&self, alerts: &serde_json::Value) -> Result<()> {
        let answer = http::send(self.http.post(format!("{}/api/v2/alerts", self.url)).json(alerts)).await?;
        ensure!(answer.status == 200, "Alertmanager answered {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Silences alerts: `matchers`, `startsAt`, `endsAt`, `createdBy` and `comment`, as its API has them.
    pub async fn silence(&self, silence: &serde_json::Value) -> Result<()> {
        let answer = http::send(self.http.post(format!("{}/api/v2/silences", self.url)).json(silence)).await?;
        ensure!(answer.status == 200, "Alertmanager answered {}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Its own metrics, `alertmanager_notifications_total` among them.
    pub async fn metrics(&self) -> Result<crate::Exposition> {
        Ok(crate::Exposition::new(http::get(&self.http, &format!("{}/metrics", self.url)).await?))
    }
}
