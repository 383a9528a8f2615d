//! `defragd serve`: puts the real parts together, and takes them apart in order.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tracing::{error, info, warn};

use super::{
    claims::Claims,
    cluster::{Cluster, Shared, stop_channel},
    gates,
    reconcile::reconcile,
    reload::Reader,
    service::App,
    web::WebFile,
};
use crate::{
    adapters::{
        etcd::{Connection, EtcdCluster, TlsFiles},
        http::{Access, Listener, Options, Web, router},
        journal::SqliteJournal,
        outgoing::Alertmanager,
    },
    config::{ClusterSettings, Settings},
    core::reason::Reason,
    ports::{clock::SystemClock, service::Service},
    telemetry::counters::Counters,
};

/// Everything but the clusters.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen; at least one address.
    pub listen: Vec<SocketAddr>,
    /// TLS, passwords and limits, in exporter-toolkit's format.
    pub web_config_file: Option<PathBuf>,
    /// The token that webhook senders must show.
    pub bearer_token_file: Option<PathBuf>,
    /// The token that people's orders must show; the senders' where absent.
    pub admin_token_file: Option<PathBuf>,
    /// No receiver and no runs.
    pub exporter_only: bool,
    /// Where the metrics are.
    pub telemetry_path: String,
    /// How many scrapes are answered at the same time; 0 is no limit.
    pub max_requests: usize,
    /// Before every path: empty, or like `/defragd`.
    pub route_prefix: String,
    /// Before every path in links.
    pub link_prefix: String,
    /// Taken off each scrape's timeout.
    pub timeout_offset: Duration,
    /// Where the journal is.
    pub data_dir: PathBuf,
    /// Asked at the start which alerts fire.
    pub alertmanagers: Vec<Alertmanager>,
    /// How many clusters may have a run under way at the same time; at least one.
    pub max_concurrent_runs: u32,
    /// How long to wait, on a signal, for the member that is being defragmented.
    pub shutdown_grace: Duration,
}

/// Connects to one configured cluster, without sending anything yet.
pub fn connect(settings: &ClusterSettings) -> anyhow::Result<EtcdCluster> {
    let user = settings
        .user
        .as_ref()
        .map(|(name, file)| {
            let password = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the password file {}", file.display()))?;
            anyhow::Ok((name.clone(), password.trim_end_matches(['\r', '\n']).to_owned()))
        })
        .transpose()?;
    let tls = TlsFiles { ca: settings.ca_file.clone(), identity: settings.identity_files.clone() };
    let connection = Connection::new(settings.endpoints.clone(), &tls, user)
        .with_context(|| format!("cluster {}", settings.name))?;
    Ok(EtcdCluster::new(connection))
}

/// A cluster for each that is configured, without sending anything yet.
fn configured(
    settings: Settings,
    shared: &Arc<Shared<SqliteJournal>>,
) -> anyhow::Result<Vec<Arc<Cluster<EtcdCluster, SqliteJournal>>>> {
    let mut clusters = Vec::new();
    for cluster in settings.clusters {
        let etcd = connect(&cluster)?;
        info!(
            cluster = cluster.name,
            mode = cluster.policy.mode.label(),
            endpoints = cluster.endpoints.join(","),
            "cluster configured"
        );
        let gates = gates::of(&cluster)?;
        clusters.push(Arc::new(Cluster::new(cluster, etcd, Arc::clone(shared)).with_gates(gates)));
    }
    // What is not good at the start ends the start.
    shared.counters.config_read(Some(shared.clock.now()));
    Ok(clusters)
}

/// Who may do what, and in the log what of that may surprise.
fn access(options: &ServeOptions, web: &Web) -> anyhow::Result<Access> {
    if options.exporter_only {
        return Ok(Access::closed());
    }
    let (webhook, admin) = (options.bearer_token_file.as_deref(), options.admin_token_file.as_deref());
    let access = Access::new(webhook, admin, &options.listen, web.authenticates())?;
    if access.orders_are_open_to_webhooks() {
        info!(
            "whoever may send webhooks may also order runs, approve, pause and resume: --web.admin-token-file parts the two"
        );
    }
    Ok(access)
}

fn http_options(options: &ServeOptions, access: Access, web: Arc<Web>) -> Options {
    Options {
        access,
        telemetry_path: options.telemetry_path.clone(),
        timeout_offset: options.timeout_offset,
        max_requests: options.max_requests,
        route_prefix: options.route_prefix.clone(),
        link_prefix: options.link_prefix.clone(),
        web,
    }
}

/// Runs until a signal. Returns whether the end was orderly.
pub async fn serve(settings: Settings, options: ServeOptions, reader: Option<Reader>) -> anyhow::Result<()> {
    let clock = Arc::new(SystemClock);
    let journal = if options.exporter_only {
        SqliteJournal::in_memory(clock.clone())?
    } else {
        SqliteJournal::open(&options.data_dir, clock.clone())?
    };
    let counters = Counters::new(settings.clusters.iter().map(|cluster| cluster.name.as_str()));
    let slots = usize::try_from(options.max_concurrent_runs).unwrap_or(1);
    let shared = Arc::new(Shared {
        journal,
        counters,
        clock,
        claims: Claims::default(),
        slots: Arc::new(Semaphore::new(slots)),
        max_concurrent_runs: options.max_concurrent_runs,
    });
    let web = Arc::new(match options.web_config_file.clone() {
        Some(path) => {
            let shared = Arc::clone(&shared);
            let tell = move |taken| shared.counters.web_config_read(taken);
            Web::open(WebFile::new(path, tell)).map_err(anyhow::Error::msg)?
        }
        None => Web::plain(),
    });
    let access = access(&options, &web)?;
    let shown = settings.shown.clone();
    let clusters = configured(settings, &shared)?;
    let app = Arc::new(App::new(clusters, shared).configured(shown, reader));
    app.recover().await?;

    // Bound before anything runs: a second defragd must fail here, not later.
    let mut listeners = Vec::new();
    for address in &options.listen {
        listeners.push(Listener::bind(*address).await?);
    }
    let (stop, stopped) = stop_channel();
    // The HTTP side outlives the runs: whoever asks while the process ends is told so, and sees the run's end.
    let (end_http, http_ends) = watch::channel(false);
    let mut servers = JoinSet::new();
    let router = router(Arc::clone(&app), http_options(&options, access, Arc::clone(&web)));
    for listener in listeners {
        info!(address = %listener.address(), tls = web.is_tls(), "listening");
        let mut http_ends = http_ends.clone();
        servers.spawn(listener.serve(router.clone(), Arc::clone(&web), async move {
            // An error means that the sender is gone, and with it the process.
            let _ = http_ends.wait_for(|ends| *ends).await;
        }));
    }
    let mut workers = JoinSet::new();
    if !options.exporter_only {
        for cluster in app.workers() {
            let (cluster, stopped) = (Arc::clone(cluster), stopped.clone());
            workers.spawn(async move { Box::pin(cluster.work(stopped)).await });
        }
    }

    // Tasks that may end: they are not waited for, and end with the process.
    let mut watches = JoinSet::new();
    for cluster in app.workers().iter().filter(|_| !options.exporter_only) {
        let cluster = Arc::clone(cluster);
        watches.spawn(async move { cluster.watch_revisions().await });
    }
    let mut reconciliations = JoinSet::new();
    for source in options.alertmanagers.iter().filter(|_| !options.exporter_only) {
        reconciliations.spawn(reconcile(Arc::clone(&app), source.clone(), stopped.clone()));
    }

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let early = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            // Logged and counted there. Short: it reads some files.
            _ = hang_up.recv() => drop(app.reload().await),
            // No task ends by itself before a stop: one that does has panicked, and what is left is not whole.
            Some(ended) = servers.join_next() => break Some(ended),
            Some(ended) = workers.join_next() => break Some(ended),
        }
    };
    app.stopping();
    stop.send_replace(Some(Reason::ShuttingDown));
    if let Some(ended) = early {
        error!(?ended, "a task ended that never should; stopping");
        anyhow::bail!("a task of defragd ended early: {ended:?}");
    }
    info!(grace_seconds = options.shutdown_grace.as_secs(), "stopping: no new member is started");
    let drained = async {
        while workers.join_next().await.is_some() {}
        end_http.send_replace(true);
        while servers.join_next().await.is_some() {}
    };
    tokio::select! {
        ended = timeout(options.shutdown_grace, drained) => if ended.is_err() {
            for cluster in app.workers() {
                if let Some(run) = cluster.summary().active_run {
                    let name = &cluster.settings().name;
                    warn!(cluster = name, run = run.0, "the run is not at its end: the server goes on by itself, and the next start takes the run up");
                }
            }
        },
        _ = terminate.recv() => warn!("second signal: ending at once"),
        _ = interrupt.recv() => warn!("second signal: ending at once"),
    }
    info!("stopped");
    Ok(())
}
