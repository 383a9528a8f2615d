//! `defragd serve`: puts the real parts together, and shuts them down in order.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tracing::{error, info, warn};

use super::{
    cluster::{Cluster, Shared, stop_channel},
    connect::{connect, connect_module},
    descriptors, gates, locks,
    notify::{self, Notifications},
    probe::{Connector, Probes},
    reconcile::reconcile,
    reload::{Equip, Reader},
    service::App,
    shards::{Shards, log_shard},
    signals::Signals,
    supervise::{Tasks, keep_credentials, observe_until_stopped, tend},
    web::WebFile,
};
use crate::{
    adapters::{
        clock::SystemClock,
        etcd::EtcdCluster,
        http::{AccessPolicy, Listener, Options, Web, router},
        journal::{Retention, SqliteJournal},
        outgoing::Alertmanager,
        systemd::{self, Manager},
    },
    config::{ConfigError, LockSettings, Settings},
    core::reason::Reason,
    ports::peers::Peers,
    telemetry::counters::Counters,
};

/// For notifications of runs that ended with the process.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// All settings except the clusters.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// The configuration file, for the log.
    pub config: Option<PathBuf>,
    /// Where to listen; at least one address.
    pub listen: Vec<SocketAddr>,
    /// Listen on the sockets passed by systemd instead.
    pub systemd_socket: bool,
    /// TLS, passwords and limits, in exporter-toolkit's format.
    pub web_config_file: Option<PathBuf>,
    /// The token that webhook senders must present.
    pub bearer_token_file: Option<PathBuf>,
    /// The token for operators' actions; the webhook senders' token if absent.
    pub admin_token_file: Option<PathBuf>,
    /// No receiver and no runs.
    pub exporter_only: bool,
    pub http: Options,
    pub data_dir: PathBuf,
    pub retention: Retention,
    /// Queried at start for firing alerts.
    pub alertmanagers: Vec<Alertmanager>,
    /// How many clusters may have a run in progress at the same time; at least one.
    pub max_concurrent_runs: u32,
    /// How long to wait, after a signal, for the member that is being defragmented.
    pub shutdown_grace: Duration,
}

/// A cluster for each configured one, without sending anything yet.
fn configured(
    settings: Settings,
    shared: &Arc<Shared<SqliteJournal>>,
    equip: &Equip<EtcdCluster, SqliteJournal>,
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
        clusters.push(Arc::new(equip(Cluster::new(cluster, etcd, Arc::clone(shared)).with_gates(gates))?));
    }
    // defragd does not start with an invalid gate or target.
    shared.counters.config_read(Some(shared.clock.now()));
    Ok(clusters)
}

/// Gives a cluster its lock and the access to the other replicas, if there are any.
fn equip(lock: &LockSettings, exporter_only: bool) -> Equip<EtcdCluster, SqliteJournal> {
    let peers: Arc<dyn Peers> = Arc::new(locks::peers(lock));
    let (lock, me) = (lock.clone(), locks::holder(lock).name);
    Arc::new(move |cluster| {
        // An exporter-only process acts on nothing, and must not keep other replicas from acting.
        let store = if exporter_only { None } else { locks::store(&lock, &cluster.settings())? };
        Ok(match store {
            _ if exporter_only => cluster.without_acting(),
            Some(store) => cluster.with_lock(store, &me).with_peers(Arc::clone(&peers)),
            None => cluster,
        })
    })
}

/// Who may do what; logs what may be surprising.
fn access(options: &ServeOptions, listen: &[SocketAddr], web: &Web) -> anyhow::Result<AccessPolicy> {
    let (webhook, admin) = (options.bearer_token_file.as_deref(), options.admin_token_file.as_deref());
    if options.exporter_only {
        return Ok(AccessPolicy::exporter_only(webhook, admin, listen)?);
    }
    let access = AccessPolicy::new(webhook, admin, listen, web.authenticates())?;
    if access.orders_are_open_to_webhooks() {
        info!(
            "webhook senders may also run, approve, reject, pause, resume, cancel and reload: pass --web.admin-token-file to separate the two"
        );
    }
    Ok(access)
}

fn web(options: &ServeOptions, shared: &Arc<Shared<SqliteJournal>>) -> anyhow::Result<Web> {
    let Some(path) = options.web_config_file.clone() else { return Ok(Web::plain()) };
    let shared = Arc::clone(shared);
    let tell = move |taken| shared.counters.web_config_read(taken);
    Web::open(WebFile::new(path, tell)).map_err(|problems| ConfigError::Unusable(problems).into())
}

/// The sockets passed by systemd, or one bound for each address.
async fn listeners(handed: Vec<Listener>, options: &ServeOptions) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = handed;
    for address in options.listen.iter().filter(|_| !options.systemd_socket) {
        listeners.push(Listener::bind(*address).await?);
    }
    Ok(listeners)
}

/// Serves each of them until `http_ends`.
fn servers(
    listeners: Vec<Listener>,
    router: &Router,
    web: &Arc<Web>,
    http_ends: &watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut servers = JoinSet::new();
    for listener in listeners {
        info!(address = %listener.address(), tls = web.is_tls(), "listening");
        let mut http_ends = http_ends.clone();
        servers.spawn(listener.serve(router.clone(), Arc::clone(web), async move {
            // An error means that the sender is gone, and the process with it.
            let _ = http_ends.wait_for(|ends| *ends).await;
        }));
    }
    servers
}

/// The URL for clients on this machine.
fn url_here(address: SocketAddr, is_tls: bool, route_prefix: &str) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let scheme = if is_tls { "https" } else { "http" };
    format!("{scheme}://{}{route_prefix}", SocketAddr::new(ip, address.port()))
}

/// An exporter records nothing.
fn journal(options: &ServeOptions, clock: Arc<SystemClock>) -> anyhow::Result<SqliteJournal> {
    let opened = if options.exporter_only {
        SqliteJournal::in_memory(clock)
    } else {
        SqliteJournal::open(&options.data_dir, clock)
    };
    Ok(opened?)
}

fn counters(settings: &Settings, options: &ServeOptions) -> Counters {
    if options.exporter_only {
        Counters::without_runs()
    } else {
        Counters::new(settings.clusters.iter().map(|cluster| cluster.name.as_str()))
    }
}

/// The targets of run notifications.
fn notifications(settings: &Settings, options: &ServeOptions, counters: &Counters) -> anyhow::Result<Notifications> {
    let targets: Vec<_> = notify::targets(&settings.notify).into_iter().collect::<anyhow::Result<_>>()?;
    Ok(Notifications::start(targets, counters.notifications(), options.http.external_url.as_ref()))
}

/// The first lines of the log: what runs, with which configuration.
fn log_start(settings: &Settings, options: &ServeOptions) {
    let clusters: Vec<_> = settings.clusters.iter().map(|cluster| cluster.name.as_str()).collect();
    let modes: BTreeSet<_> = settings.clusters.iter().map(|cluster| cluster.policy.mode.label()).collect();
    let mode = if options.exporter_only { "exporter-only".to_owned() } else { Vec::from_iter(modes).join(",") };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = option_env!("DEFRAGD_REVISION").unwrap_or("unknown"),
        config = options.config.as_ref().map(|path| path.display().to_string()),
        data_dir = (!options.exporter_only).then(|| options.data_dir.display().to_string()),
        clusters = clusters.join(","),
        mode,
        "starting defragd"
    );
    log_shard(Shards::of(settings).as_ref(), settings, options.exporter_only);
    descriptors::warn_if_few(&settings.clusters, &settings.lock, options.exporter_only);
}

/// Runs until a signal. Returns whether the shutdown was orderly.
pub async fn serve(settings: Settings, options: ServeOptions, reader: Option<Reader>) -> anyhow::Result<()> {
    let manager = Manager::from_env();
    manager.starting("opening the journal");
    log_start(&settings, &options);
    // Taken before anything else is opened: they are identified by their file descriptor numbers.
    let inherited = if options.systemd_socket { systemd::sockets()? } else { Vec::new() };
    let clock = Arc::new(SystemClock);
    let journal = journal(&options, Arc::clone(&clock))?;
    let counters = counters(&settings, &options);
    let notifications = notifications(&settings, &options, &counters)?;
    let shared = Arc::new(Shared::new(journal, counters, clock, notifications, options.max_concurrent_runs));
    let web = Arc::new(web(&options, &shared)?);
    let handed = inherited.into_iter().map(Listener::inherited).collect::<Result<Vec<_>, _>>()?;
    let addresses: Vec<_> = handed.iter().map(Listener::address).collect();
    let listen = if options.systemd_socket { &addresses } else { &options.listen };
    let access = access(&options, listen, &web)?;
    let (shards, elsewhere) = (Shards::of(&settings), settings.elsewhere.clone());
    let (redacted, notify) = (settings.redacted.clone(), settings.notify.clone());
    let connector: Connector<EtcdCluster> = Arc::new(connect_module);
    let probes = Arc::new(Probes::new(settings.modules.clone(), connector));
    let (lock, equip) = (settings.lock.clone(), equip(&settings.lock, options.exporter_only));
    let clusters = configured(settings, &shared, &equip)?;
    let journal = shared.journal.clone();
    let app = App::new(clusters, shared).configured(redacted, notify, reader, Arc::new(connect)).locking(lock, equip);
    let app = Arc::new(app.probing(Arc::clone(&probes)).sharded(shards, elsewhere));
    app.recover().await?;

    // Bound before anything runs: a second defragd must fail here, not later.
    let listeners = listeners(handed, &options).await?;
    let own_url =
        listeners.first().map(|listener| url_here(listener.address(), web.is_tls(), &options.http.route_prefix));
    if let Some(Err(error)) = own_url.map(|url| journal.publish_url(&url)) {
        warn!(%error, "cannot write this server's URL into the journal's directory: commands there need --server");
    }
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.address().to_string()).collect();
    let addresses = addresses.join(", ");
    let (stop, stopped) = stop_channel();
    // The HTTP side outlives the runs: clients see the shutdown and the run's end.
    let (end_http, http_ends) = watch::channel(false);
    let router = router(Arc::clone(&app), access, Arc::clone(&web), options.http.clone());
    // Before anyone can see that it serves, and send one: it would end the process at once, a reload too.
    let mut signals = Signals::new()?;
    let servers = servers(listeners, &router, &web, &http_ends);
    let mut workers = JoinSet::new();
    workers.spawn(keep_credentials(Arc::clone(&app), stopped.clone()));
    workers.spawn(tend(journal, options.retention, stopped.clone()));
    let to_run = app.fleet().cluster_tasks().context("the units are run once")?;
    let mut tasks = Tasks { servers, workers, to_run, serves: !options.exporter_only };
    for cluster in &app.fleet().now().clusters {
        app.fleet().spawn(cluster);
    }

    // Tasks that may end at any time: they are not awaited, and end with the process.
    let mut watches = JoinSet::new();
    watches.spawn(async move { probes.sweep().await });
    let charts = Arc::clone(&app);
    watches.spawn(async move { charts.keep_charts().await });
    let moved = Arc::clone(&app);
    watches.spawn(async move { moved.forward_moved().await });
    let mut reconciliations = JoinSet::new();
    for source in options.alertmanagers.iter().filter(|_| !options.exporter_only) {
        reconciliations.spawn(reconcile(Arc::clone(&app), source.clone(), stopped.clone()));
    }

    let early = observe_until_stopped(&app, &manager, &addresses, &mut signals, &mut tasks).await;
    app.stopping();
    manager.stopping(&format!("stopping: {}", app.status_line(&addresses)));
    stop.send_replace(Some(Reason::ShuttingDown));
    app.fleet().stop(&Reason::ShuttingDown);
    if let Some(ended) = early {
        error!(?ended, "a task ended unexpectedly; stopping");
        anyhow::bail!("a task of defragd ended unexpectedly: {ended:?}");
    }
    info!(grace_seconds = options.shutdown_grace.as_secs(), "stopping: starting no further member");
    let drained = async {
        while tasks.workers.join_next().await.is_some() {}
        app.shared.notifications.finish(LAST_WORDS).await;
        end_http.send_replace(true);
        while tasks.servers.join_next().await.is_some() {}
    };
    tokio::select! {
        ended = timeout(options.shutdown_grace, drained) => if ended.is_err() {
            for cluster in app.fleet().all() {
                if let Some(run) = cluster.summary().active_run {
                    warn!(cluster = cluster.name(), run = run.0, "the run has not ended: etcd finishes the defragmentation, and the next start of defragd resumes the run");
                }
            }
        },
        () = signals.end() => warn!("second signal: exiting now"),
    }
    info!("stopped");
    Ok(())
}
