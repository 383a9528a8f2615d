//! A real Prometheus on a free port.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::process::Process;
use crate::{Port, Tools, http, until};

const READY: Duration = Duration::from_secs(30);

/// A running Prometheus. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    http: reqwest::Client,
    process: Process,
    _dir: TempDir,
}

/// One series of an instant query's answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Its labels, the metric's name as `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// An alert as Prometheus has it.
#[derive(Debug, Clone, Deserialize)]
pub struct FiringAlert {
    /// Its labels, with `alertname`.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `pending` or `firing`.
    pub state: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
    value: (f64, String),
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<FiringAlert>,
}

impl Prometheus {
    /// Starts it with this configuration (YAML; paths in it absolute), logging to a file, and waits until it is ready.
    pub async fn start(tools: &Tools, config: &str, log: &Path) -> Result<Self> {
        Self::start_program(&tools.prometheus(), config, log).await
    }

    /// The same with a Prometheus of another version.
    pub async fn start_program(program: &Path, config: &str, log: &Path) -> Result<Self> {
        Self::start_in(tempfile::Builder::new().prefix("defragd-prometheus-").tempdir()?, program, config, log).await
    }

    /// Starts it without anything to scrape, and with this past (OpenMetrics with times, in their order by series),
    /// which promtool makes blocks of.
    pub async fn with_history(tools: &Tools, open_metrics: &str, log: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("defragd-prometheus-").tempdir()?;
        backfill(tools, open_metrics, dir.path()).await?;
        Self::start_in(dir, &tools.prometheus(), "scrape_configs: []", log).await
    }

    async fn start_in(dir: TempDir, program: &Path, config: &str, log: &Path) -> Result<Self> {
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config)?;
        let mut port = Port::reserve()?;
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", dir.path().join("data").display()),
            format!("--web.listen-address={}", port.address()),
            // Its own default would delete a month's history at the start.
            "--storage.tsdb.retention.time=400d".to_owned(),
            "--log.level=warn".to_owned(),
        ];
        let url = format!("http://{}", port.address());
        port.release();
        let process = Process::spawn("prometheus", program, &args, &[], log)?;
        let http = http::client(None)?;
        process.ready(READY, || async { http::get(&http, &format!("{url}/-/ready")).await }).await?;
        Ok(Self { url, http, process, _dir: dir })
    }

    /// Where it serves.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its log file.
    pub fn log_path(&self) -> &Path {
        self.process.log_path()
    }

    /// An instant query that gives a vector.
    pub async fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        let mut url = reqwest::Url::parse(&format!("{}/api/v1/query", self.url))?;
        url.query_pairs_mut().append_pair("query", expression);
        let vector: Vector = self.api(url.as_str()).await?;
        vector
            .result
            .into_iter()
            .map(|series| Ok(Sample { labels: series.metric, value: series.value.1.parse()? }))
            .collect()
    }

    /// Every alert that is pending or firing.
    pub async fn alerts(&self) -> Result<Vec<FiringAlert>> {
        let alerts: Alerts = self.api(&format!("{}/api/v1/alerts", self.url)).await?;
        Ok(alerts.alerts)
    }

    /// Waits until an alert of that name fires; gives those that do.
    pub async fn wait_firing(&self, alertname: &str, limit: Duration) -> Result<Vec<FiringAlert>> {
        until(&format!("the alert {alertname} to fire"), limit, || async {
            let mut firing = self.alerts().await?;
            let all = firing.len();
            firing.retain(|alert| {
                alert.state == "firing" && alert.labels.get("alertname").is_some_and(|name| name == alertname)
            });
            ensure!(!firing.is_empty(), "it is not among the {all} alerts that fire or are pending");
            Ok(firing)
        })
        .await
    }

    async fn api<T: DeserializeOwned>(&self, url: &str) -> Result<T> {
        let text = http::get(&self.http, url).await?;
        let answer: Answer<T> = serde_json::from_str(&text).with_context(|| format!("{url} answered {text}"))?;
        Ok(answer.data)
    }
}

/// Makes blocks of this past in the folder `data` of this one.
pub(crate) async fn backfill(tools: &Tools, open_metrics: &str, dir: &Path) -> Result<()> {
    let (input, data) = (dir.join("history.om"), dir.join("data"));
    fs::write(&input, open_metrics)?;
    // Blocks of two hours would make promtool read the whole input hundreds of times.
    let made = tokio::process::Command::new(tools.promtool())
        .args(["tsdb", "create-blocks-from", "--max-block-duration=480h", "openmetrics", "--quiet"])
        .args([&input, &data])
        .output()
        .await?;
    ensure!(made.status.success(), "promtool made no blocks: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// The shipped rules for a test: `for:` of a second, and 4 MiB instead of 100.
pub fn shortened_rules(rules: &str) -> Result<String> {
    let smaller = rules.replace("100 * 1024 * 1024", "4 * 1024 * 1024");
    ensure!(smaller != rules, "the rule's threshold is written otherwise now");
    let short = |line: &str| match line.trim_start().strip_prefix("for:") {
        Some(_) => format!("{}for: 1s\n", &line[..line.len() - line.trim_start().len()]),
        None => format!("{line}\n"),
    };
    Ok(smaller.lines().map(short).collect())
}
