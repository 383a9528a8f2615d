//! `defragd serve`

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bytesize::ByteSize;
use clap::ArgAction;

use super::{
    Exit,
    args::{self, Connection, PolicyArgs, UsageError},
    lock::LockArgs,
    shards::ShardArgs,
};
use crate::{
    adapters::{http::Options, journal::Retention, outgoing::Alertmanager},
    app::{
        reload::Reader,
        serve::{ServeOptions, serve},
    },
    core::time::Time,
    telemetry::logging,
};

// A heading holds for what follows, so the flags without one come first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only export metrics: no webhook receiver, no runs
    #[arg(long, env = "DEFRAGD_EXPORTER_ONLY", action = ArgAction::SetTrue)]
    exporter_only: bool,
    /// Directory of the journal [default: /var/lib/defragd for root, else ~/.local/state/defragd]
    #[arg(long, env = "DEFRAGD_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// How many clusters of this process may have a run in progress at the same time
    #[arg(long, env = "DEFRAGD_MAX_CONCURRENT_RUNS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "NUMBER")]
    max_concurrent_runs: u32,
    /// After a signal, how long to wait for the member that is being defragmented
    #[arg(long, env = "DEFRAGD_SHUTDOWN_GRACE", default_value = "25s", value_name = "TIME")]
    shutdown_grace: Time,
    #[command(flatten)]
    web: WebArgs,
    #[command(flatten)]
    journal: JournalArgs,
    #[command(flatten)]
    alertmanager: AlertmanagerArgs,
    /// Lowest level that is logged
    #[arg(long = "log.level", env = "DEFRAGD_LOG_LEVEL", value_enum, default_value_t, help_heading = "Log")]
    log_level: logging::Level,
    /// Format of log lines
    #[arg(long = "log.format", env = "DEFRAGD_LOG_FORMAT", value_enum, default_value_t, help_heading = "Log")]
    log_format: logging::Format,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    shards: ShardArgs,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Web")]
struct WebArgs {
    /// Address to listen on; may be given several times
    #[arg(
        long = "web.listen-address",
        env = "DEFRAGD_WEB_LISTEN_ADDRESS",
        value_delimiter = ',',
        default_value = "127.0.0.1:9379",
        value_name = "ADDRESS"
    )]
    listen: Vec<String>,
    /// Listen on the sockets that systemd passes, instead of the addresses
    #[arg(long = "web.systemd-socket", env = "DEFRAGD_WEB_SYSTEMD_SOCKET", action = ArgAction::SetTrue)]
    systemd_socket: bool,
    /// File with TLS, users, headers and a rate limit, in exporter-toolkit's format; reloaded when it changes
    #[arg(long = "web.config.file", env = "DEFRAGD_WEB_CONFIG_FILE", value_name = "FILE")]
    web_config_file: Option<PathBuf>,
    /// File with the bearer token that webhook senders must present; required on non-loopback addresses, unless
    /// --web.config.file requires a password or a client certificate
    #[arg(long = "web.bearer-token-file", env = "DEFRAGD_WEB_BEARER_TOKEN_FILE", value_name = "FILE")]
    bearer_token_file: Option<PathBuf>,
    /// File with the bearer token for run, approve, reject, pause, resume, cancel and reload [default: the webhook senders' token]
    #[arg(long = "web.admin-token-file", env = "DEFRAGD_WEB_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Path of the metrics
    #[arg(
        long = "web.telemetry-path",
        env = "DEFRAGD_WEB_TELEMETRY_PATH",
        default_value = "/metrics",
        value_name = "PATH"
    )]
    telemetry_path: String,
    /// How many scrapes are served at the same time, others get 503; 0 means no limit
    #[arg(long = "web.max-requests", env = "DEFRAGD_WEB_MAX_REQUESTS", default_value_t = 40, value_name = "NUMBER")]
    max_requests: usize,
    /// URL under which defragd is reachable from outside, for links
    #[arg(long = "web.external-url", env = "DEFRAGD_WEB_EXTERNAL_URL", value_name = "URL")]
    external_url: Option<String>,
    /// Prefix of all paths [default: the path of --web.external-url]
    #[arg(long = "web.route-prefix", env = "DEFRAGD_WEB_ROUTE_PREFIX", value_name = "PATH")]
    route_prefix: Option<String>,
    /// Seconds to subtract from the scrape timeout that Prometheus sends
    #[arg(long, env = "DEFRAGD_TIMEOUT_OFFSET", default_value_t = 0.5, value_name = "SECONDS")]
    timeout_offset: f64,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Journal")]
struct JournalArgs {
    /// How long the journal keeps runs; it always keeps the newest one of each cluster
    #[arg(long = "journal.retention", env = "DEFRAGD_JOURNAL_RETENTION", default_value = "365d", value_name = "TIME")]
    retention: Time,
    /// How many runs of each cluster the journal keeps
    #[arg(long = "journal.max-runs", env = "DEFRAGD_JOURNAL_MAX_RUNS", value_name = "NUMBER",
          default_value_t = Retention::default().runs_of_a_cluster, value_parser = clap::value_parser!(u32).range(500..))]
    max_runs: u32,
    /// Size at which the journal deletes its oldest runs
    #[arg(long = "journal.max-size", env = "DEFRAGD_JOURNAL_MAX_SIZE", default_value = "256MiB", value_name = "SIZE")]
    max_size: ByteSize,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Alertmanager")]
struct AlertmanagerArgs {
    /// Alertmanager to query at start for firing alerts; may be given several times
    #[arg(long = "alertmanager.url", env = "DEFRAGD_ALERTMANAGER_URL", value_delimiter = ',', value_name = "URL")]
    alertmanagers: Vec<String>,
    /// File with the bearer token for Alertmanager
    #[arg(
        long = "alertmanager.bearer-token-file",
        env = "DEFRAGD_ALERTMANAGER_BEARER_TOKEN_FILE",
        value_name = "FILE"
    )]
    alertmanager_token_file: Option<PathBuf>,
    /// CA certificates to trust for Alertmanager
    #[arg(long = "alertmanager.ca-file", env = "DEFRAGD_ALERTMANAGER_CA_FILE", value_name = "FILE")]
    alertmanager_ca_file: Option<PathBuf>,
}

impl AlertmanagerArgs {
    fn open(self) -> Result<Vec<Alertmanager>, UsageError> {
        let open = |url: &String| {
            Alertmanager::new(url, self.alertmanager_token_file.clone(), self.alertmanager_ca_file.as_ref())
                .map_err(|error| UsageError(format!("--alertmanager.url: {error}")))
        };
        self.alertmanagers.iter().map(open).collect()
    }
}

pub(super) async fn run(args: Args) -> anyhow::Result<Exit> {
    if !args.connection.is_given() {
        let what =
            "there is no cluster to watch: pass --config FILE, or --endpoints URL with the certificates of one cluster";
        return Err(UsageError(what.to_owned()).into());
    }
    let settings = args.connection.settings_with(Some(&args.policy), &args.lock, &args.shards)?;
    let settings = settings.into_shard().map_err(UsageError)?;
    let web = args.web;
    let listen = web.listen.iter().map(|text| address(text)).collect::<Result<Vec<_>, _>>()?;
    let timeout_offset = Duration::try_from_secs_f64(web.timeout_offset)
        .map_err(|_| UsageError("--timeout-offset must be a number of seconds, 0 or more".to_owned()))?;
    if !is_plain_path(&web.telemetry_path) {
        return Err(UsageError(
            "--web.telemetry-path must be a plain path that is not used otherwise, such as /metrics".to_owned(),
        )
        .into());
    }
    let (route_prefix, link_prefix) = prefixes(web.external_url.as_deref(), web.route_prefix.as_deref())?;
    let alertmanagers = args.alertmanager.open()?;
    let _logging = logging::init(args.log_level, args.log_format);
    let JournalArgs { retention, max_runs, max_size } = args.journal;
    let options = ServeOptions {
        config: args.connection.config.clone(),
        listen,
        systemd_socket: web.systemd_socket,
        web_config_file: web.web_config_file,
        bearer_token_file: web.bearer_token_file,
        admin_token_file: web.admin_token_file,
        exporter_only: args.exporter_only,
        http: Options {
            telemetry_path: web.telemetry_path,
            timeout_offset,
            max_requests: web.max_requests,
            route_prefix,
            link_prefix,
            external_url: web.external_url.as_deref().and_then(|text| url::Url::parse(text).ok()),
        },
        data_dir: args::data_dir(args.data_dir),
        retention: Retention { age: retention.into(), runs_of_a_cluster: max_runs, size: max_size.0 },
        alertmanagers,
        max_concurrent_runs: args.max_concurrent_runs,
        shutdown_grace: args.shutdown_grace.into(),
    };
    let reader = args.connection.config.is_some().then(|| {
        let (connection, policy, lock, shards) = (args.connection, args.policy, args.lock, args.shards);
        let read = move || {
            let settings = connection.settings_with(Some(&policy), &lock, &shards);
            settings.map_err(|error| format!("{error:#}"))?.into_shard()
        };
        Arc::new(read) as Reader
    });
    serve(settings, options, reader).await?;
    Ok(Exit::Done)
}

/// `:9379` means all addresses, as in other exporters.
fn address(text: &str) -> Result<SocketAddr, UsageError> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.replacen("localhost:", "127.0.0.1:", 1) };
    full.parse().map_err(|_| {
        UsageError(format!("--web.listen-address {text:?} is not ADDRESS:PORT, like 127.0.0.1:9379 or :9379"))
    })
}

/// Route prefix and link prefix, without a trailing slash, so empty for the root.
fn prefixes(external_url: Option<&str>, route_prefix: Option<&str>) -> Result<(String, String), UsageError> {
    let outside = external_url.map(|text| match url::Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(url.path().to_owned()),
        _ => Err(UsageError(format!("--web.external-url {text:?} is not a URL like https://example.com/defragd"))),
    });
    let outside = outside.transpose()?;
    let trimmed = |path: &str| path.trim_end_matches('/').to_owned();
    let link_prefix = trimmed(outside.as_deref().or(route_prefix).unwrap_or_default());
    let route_prefix = route_prefix.map_or(link_prefix.clone(), trimmed);
    for (flag, prefix) in [("--web.route-prefix", &route_prefix), ("the path of --web.external-url", &link_prefix)] {
        let plain = prefix.chars().all(|c| c.is_ascii_alphanumeric() || "/-_.".contains(c));
        let is_path = plain && prefix.starts_with('/');
        if !prefix.is_empty() && !is_path {
            return Err(UsageError(format!("{flag} must be a plain path, like /defragd")));
        }
    }
    Ok((route_prefix, link_prefix))
}

/// These paths are taken by other pages.
const TAKEN: [&str; 11] = [
    "/api",
    "/-",
    "/config",
    "/configuration",
    "/probe",
    "/events",
    "/assets",
    "/clusters",
    "/runs",
    "/login",
    "/logout",
];

fn is_plain_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
    path.len() > 1
        && path.starts_with('/')
        && path.chars().all(plain)
        && !TAKEN
            .iter()
            .any(|taken| path.strip_prefix(taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}
