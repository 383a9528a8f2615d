//! `defragd report`

mod hints;

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;

use super::{Exit, args::UsageError};
use crate::{
    adapters::outgoing::{ClientSettings, ClientTls, Credentials, Prometheus},
    app::report::{Question, report},
    core::time::Time,
    report::Format,
};

/// After this long, the operator wants to see progress.
const PROGRESS_AFTER: Duration = Duration::from_secs(2);
/// Time between two progress lines if standard error is not a terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// For one part of the range; Prometheus itself gives up after two minutes.
const DEADLINE: Duration = Duration::from_mins(2);

/// Which Prometheus to query, and the credentials for it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Prometheus")]
struct Source {
    /// URL of the Prometheus that scrapes defragd, or of a service with the same API
    #[arg(long = "prometheus.url", env = "DEFRAGD_PROMETHEUS_URL", value_name = "URL")]
    url: String,
    /// File with the bearer token for it
    #[arg(
        long = "prometheus.bearer-token-file",
        env = "DEFRAGD_PROMETHEUS_BEARER_TOKEN_FILE",
        conflicts_with = "user",
        value_name = "FILE"
    )]
    token_file: Option<PathBuf>,
    /// User for basic authentication
    #[arg(long = "prometheus.user", env = "DEFRAGD_PROMETHEUS_USER", requires = "password_file", value_name = "NAME")]
    user: Option<String>,
    /// File with the user's password
    #[arg(
        long = "prometheus.password-file",
        env = "DEFRAGD_PROMETHEUS_PASSWORD_FILE",
        requires = "user",
        value_name = "FILE"
    )]
    password_file: Option<PathBuf>,
    /// CA certificates to trust for it
    #[arg(long = "prometheus.ca-file", env = "DEFRAGD_PROMETHEUS_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Client certificate
    #[arg(
        long = "prometheus.cert-file",
        env = "DEFRAGD_PROMETHEUS_CERT_FILE",
        requires = "key_file",
        value_name = "FILE"
    )]
    cert_file: Option<PathBuf>,
    /// Its key
    #[arg(
        long = "prometheus.key-file",
        env = "DEFRAGD_PROMETHEUS_KEY_FILE",
        requires = "cert_file",
        value_name = "FILE"
    )]
    key_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// How far to look back, such as 30d
    #[arg(long, default_value = "30d", value_name = "TIME")]
    range: Time,
    /// One value per TIME, the newest sample in it [default: --range / 720, at least 1m]
    #[arg(long, value_name = "TIME")]
    step: Option<Time>,
    /// End of the range, such as 2026-01-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    end: Option<Timestamp>,
    /// Only this cluster (its label `etcd_cluster`)
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Output format
    #[arg(short, long, value_parser = formats(), default_value = "markdown")]
    output: Format,
    /// Write the report to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
}

fn formats() -> impl TypedValueParser<Value = Format> {
    let names = [PossibleValue::new("markdown").alias("table"), "html".into(), "csv".into(), "json".into()];
    PossibleValuesParser::new(names).map(|name| match name.as_str() {
        "html" => Format::Html,
        "csv" => Format::Csv,
        "json" => Format::Json,
        _ => Format::Markdown,
    })
}

impl Source {
    fn open(self) -> Result<Prometheus, UsageError> {
        let credentials = Credentials::of_flags(self.token_file, self.user, self.password_file);
        let Self { ca_file, cert_file, key_file, .. } = self;
        let tls = ClientTls { ca_file, cert_file, key_file, ..ClientTls::default() };
        let access = ClientSettings::new(credentials, tls, DEADLINE);
        Prometheus::new(&self.url, access).map_err(|error| UsageError(format!("--prometheus.url: {error}")))
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    let question = Question {
        to: args.end.unwrap_or_else(Timestamp::now).as_second(),
        range: args.range.into(),
        step: args.step.map(Duration::from),
    };
    let frame = question.frame().map_err(UsageError)?;
    let shows_something = args.source.user.is_some() || args.source.token_file.is_some();
    let prometheus = args.source.open()?;
    let mut progress = Progress::new();
    let found = report(&prometheus, frame, args.cluster.as_deref(), |done, all| progress.report(done, all)).await;
    progress.end();
    let report = found.map_err(|error| match hints::of(&error, shows_something) {
        Some(hint) => anyhow::anyhow!("{error}\n  {hint}"),
        None => error.into(),
    })?;
    if report.clusters.is_empty() {
        let which = args.cluster.map_or_else(|| "any cluster".to_owned(), |name| format!("the cluster {name:?}"));
        anyhow::bail!(
            "Prometheus has no defragd_member_db_size_in_use_bytes of {which} in the last {}\n  \
            Check that it scraped defragd in that time: query `up{{job=\"defragd\"}}` on its own page.",
            args.range
        );
    }
    let text = report.written(args.output)?;
    match args.output_file {
        Some(path) => {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    Ok(Exit::Done)
}

/// Progress lines on standard error, if the report takes long.
struct Progress {
    began: Instant,
    reported_at: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        Self { began: Instant::now(), reported_at: None, is_terminal: std::io::stderr().is_terminal() }
    }

    fn report(&mut self, done: usize, all: usize) {
        let every = if self.is_terminal { Duration::ZERO } else { PROGRESS_EVERY };
        if self.began.elapsed() < PROGRESS_AFTER
            || self.reported_at.is_some_and(|reported_at| reported_at.elapsed() < every)
        {
            return;
        }
        self.reported_at = Some(Instant::now());
        let (begin, end) = if self.is_terminal { ("\r", "") } else { ("", "\n") };
        eprint!("{begin}defragd: {done} of {all} Prometheus queries done, {} %{end}", done * 100 / all.max(1));
    }

    fn end(&self) {
        if self.reported_at.is_some() && self.is_terminal {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_describes_the_step() {
        let args = <Args as clap::Args>::augment_args(clap::Command::new("report"));
        let step = args.get_arguments().find(|arg| arg.get_id() == "step").unwrap();
        let help = step.get_help().unwrap().to_string();
        assert_eq!(help, "One value per TIME, the newest sample in it [default: --range / 720, at least 1m]");
    }

    #[test]
    fn a_range_may_be_in_days_and_weeks() {
        for (text, hours) in [("30d", 720), ("2w", 336), ("36h", 36), ("1d 12h", 36)] {
            assert_eq!(text.parse(), Ok(Time::from(Duration::from_hours(hours))), "{text}");
        }
        assert!("1mo".parse::<Time>().is_err() && "30".parse::<Time>().is_err());
    }
}
