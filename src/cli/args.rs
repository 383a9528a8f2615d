//! Flags that several commands share, and the settings they result in.

use std::{path::PathBuf, sync::Once};

use anyhow::Context;
use bytesize::ByteSize;
use clap::{ArgAction, Args, ValueEnum};
use serde::Serialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

pub(super) use super::typed::{is_typed, typed_flag};
use super::{etcdctl, keys, lock::LockArgs, shards::ShardArgs, typed::typed_among};
use crate::{
    adapters::etcd::EtcdCluster,
    app::connect::{connect, connect_unverified},
    config::{ClusterSettings, Overrides, Settings, Source},
    core::{time::Time, wire},
};

/// A usage error of the command line; exit code 2.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

pub(super) type Connect = fn(&ClusterSettings) -> anyhow::Result<EtcdCluster>;

/// How the result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// At most 120 columns wide.
    #[default]
    Table,
    /// As a table with everything, as wide as it is.
    Wide,
    Json,
}

/// Where the clusters are: in a file, or given by etcdctl's own flags for a single one.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// Configuration file with one or more clusters, instead of the flags below
    #[arg(long = "config", alias = "config.file", env = "DEFRAGD_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Client URLs; one member is enough, the others are discovered [default: 127.0.0.1:2379; `run` and
    /// `serve` have none]
    #[arg(long, env = "ETCDCTL_ENDPOINTS", hide_env_values = true, value_delimiter = ',', value_name = "URL")]
    endpoints: Vec<String>,
    /// Domain whose SRV records list the client URLs: _etcd-client-ssl._tcp, _etcd-client._tcp
    #[arg(long, short = 'd', env = "ETCDCTL_DISCOVERY_SRV", hide_env_values = true, value_name = "DOMAIN")]
    discovery_srv: Option<String>,
    /// Service name in the SRV records, for domains with several clusters
    #[arg(long, env = "ETCDCTL_DISCOVERY_SRV_NAME", hide_env_values = true, value_name = "NAME")]
    discovery_srv_name: Option<String>,
    /// Also accept SRV records without TLS; with false, server certificates must be valid for the domain
    #[arg(long, env = "ETCDCTL_INSECURE_DISCOVERY", hide_env_values = true, default_value_t = true,
          default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set, value_name = "BOOL")]
    insecure_discovery: bool,
    /// DNS server to query instead of the system's, for the records and for addresses
    #[arg(long, env = "DEFRAGD_DISCOVERY_NAMESERVER", value_name = "IP:PORT")]
    discovery_nameserver: Option<std::net::SocketAddr>,
    /// CA certificates to trust
    #[arg(long, env = "ETCDCTL_CACERT", hide_env_values = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Accept any member certificate: for status and plan only, and not together with --user
    #[arg(long)]
    insecure_skip_tls_verify: bool,
    /// Client certificate
    #[arg(long, env = "ETCDCTL_CERT", hide_env_values = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, env = "ETCDCTL_KEY", hide_env_values = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// etcd user with the root role
    #[arg(long, env = "ETCDCTL_USER", hide_env_values = true, value_name = "NAME")]
    user: Option<String>,
    /// File with the user's password
    #[arg(long, env = "ETCDCTL_PASSWORD_FILE", hide_env_values = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Name of the cluster that the flags describe; also the metric label `etcd_cluster`
    #[arg(long, env = "DEFRAGD_CLUSTER_NAME", default_value = "etcd", value_name = "NAME")]
    cluster_name: String,
}

/// Policy keys that override those of the file, or the defaults.
#[derive(Clone, Debug, Args, Serialize)]
#[command(next_help_heading = "Policy (overrides the file)")]
pub(super) struct PolicyArgs {
    /// observe: plan runs and change nothing; approve: wait for an operator's approval first; enforce: defragment
    /// [default: observe; of `defragd run` without --config: enforce]
    #[arg(long, env = "DEFRAGD_MODE", value_parser = ["observe", "approve", "enforce"])]
    pub(super) mode: Option<String>,
    /// Defragment a member from this fragmentation ratio on, if --min-reclaimable is reached, too [default: 0.45]
    #[arg(long, env = "DEFRAGD_MIN_FRAGMENTATION_RATIO", value_name = "RATIO")]
    min_fragmentation_ratio: Option<f64>,
    /// The least that a defragmentation must be able to free [default: 100MiB]
    #[arg(long, env = "DEFRAGD_MIN_RECLAIMABLE", value_name = "SIZE")]
    #[serde(serialize_with = "wire::number::serialize")]
    min_reclaimable: Option<ByteSize>,
    /// Defragment a member that uses this much of its quota, if --quota-min-reclaimable is reached, too [default: 0.8]
    #[arg(long, env = "DEFRAGD_QUOTA_USAGE_RATIO", value_name = "RATIO")]
    quota_usage_ratio: Option<f64>,
    /// As --min-reclaimable, for members near their quota [default: 32MiB]
    #[arg(long, env = "DEFRAGD_QUOTA_MIN_RECLAIMABLE", value_name = "SIZE")]
    #[serde(serialize_with = "wire::number::serialize")]
    quota_min_reclaimable: Option<ByteSize>,
    /// How long the cluster must have been healthy before the next member starts [default: 10s]
    #[arg(long, env = "DEFRAGD_PAUSE_BETWEEN_MEMBERS", value_name = "TIME")]
    pause_between_members: Option<Time>,
    /// How long one defragmentation may take before it counts as failed and the run stops [default: 10m]
    #[arg(long, env = "DEFRAGD_DEFRAG_DEADLINE", value_name = "TIME")]
    defrag_deadline: Option<Time>,
    /// How long the cluster may take to be healthy again after a member [default: 5m]
    #[arg(long, env = "DEFRAGD_RECOVERY_TIMEOUT", value_name = "TIME")]
    recovery_timeout: Option<Time>,
    /// How long a cluster is left alone after a run that did its work [default: 6h]
    #[arg(long, env = "DEFRAGD_COOLDOWN", value_name = "TIME")]
    cooldown: Option<Time>,
    /// The leader, once all others are done: last (defragmented as the leader), last-after-transfer (leadership is
    /// transferred first), skip, auto (see --transfer-above) [default: auto]
    #[arg(long, env = "DEFRAGD_LEADER", value_parser = ["auto", "last", "last-after-transfer", "skip"])]
    leader: Option<String>,
    /// With leader auto, transfer leadership first if the leader is expected to be unavailable for longer [default: 2s]
    #[arg(long, env = "DEFRAGD_TRANSFER_ABOVE", value_name = "TIME")]
    transfer_above: Option<Time>,
    /// How long the liveness probe lets etcd hang before it is killed: warn about members that are expected to be
    /// unavailable for longer
    #[arg(long, env = "DEFRAGD_LIVENESS_BUDGET", value_name = "TIME")]
    liveness_budget: Option<Time>,
    /// Refuse a run while a member is expected to be unavailable for longer
    #[arg(long, env = "DEFRAGD_MAX_EXPECTED_STALL", value_name = "TIME")]
    max_expected_stall: Option<Time>,
    /// A member that is sending a snapshot, which would block its defragmentation: wait for the snapshot to end, or
    /// ignore it [default: wait]
    #[arg(long, env = "DEFRAGD_ON_OPEN_SNAPSHOT", value_parser = ["wait", "ignore"])]
    on_open_snapshot: Option<String>,
    /// Compact the history before the first member: keep-revisions=NUMBER, or with `serve` older-than=TIME
    /// [default: no compaction]
    #[arg(long, env = "DEFRAGD_COMPACTION", value_name = "KEY=VALUE", value_parser = compaction)]
    compaction: Option<Value>,
    /// After a run, compare the members' data: none, hash (each voter hashes its whole database) [default: none]
    #[arg(long, env = "DEFRAGD_VERIFY", value_parser = ["none", "hash"])]
    verify: Option<String>,
    /// Accept clusters of one or two members, which stop serving while one of them is defragmented
    #[arg(long, env = "DEFRAGD_ALLOW_WITHOUT_QUORUM_SLACK", action = ArgAction::SetTrue)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_without_quorum_slack: bool,
    /// An expression instead of the thresholds, like `dbQuotaUsage > 0.8 || dbSizeFree > 200*1024*1024`
    #[arg(long, env = "DEFRAGD_RULE", value_name = "EXPRESSION")]
    rule: Option<String>,
    /// Most runs within 24 hours that changed a member [default: 4]
    #[arg(long, env = "DEFRAGD_MAX_RUNS_PER_DAY", value_name = "NUMBER")]
    max_runs_per_day: Option<u32>,
    /// After this many failed runs in a row, start no run until `defragd resume` [default: 3]
    #[arg(long, env = "DEFRAGD_BREAKER_FAILURES", value_name = "NUMBER")]
    breaker_failures: Option<u32>,
    /// How long after the last failure one more run is tried without `defragd resume` [default: never]
    #[arg(long, env = "DEFRAGD_BREAKER_RESET_AFTER", value_name = "TIME")]
    breaker_reset_after: Option<Time>,
    /// In mode approve, how long a request waits for an operator [default: 24h]
    #[arg(long, env = "DEFRAGD_APPROVAL_TIMEOUT", value_name = "TIME")]
    approval_timeout: Option<Time>,
    /// Whether NOSPACE, or a file at 0.9 of its quota, overrides windows, cooldown, daily limit and the wait after a failure [default: true]
    #[arg(long, env = "DEFRAGD_EMERGENCY", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    emergency: Option<bool>,
}

/// Replaces both keys of the file.
fn compaction(text: &str) -> Result<Value, String> {
    let keys = match text.split_once('=') {
        Some(("keep-revisions", number)) => {
            number.parse::<u64>().ok().map(|number| json!({ "keep_revisions": number, "older_than": null }))
        }
        Some(("older-than", time)) => {
            time.parse::<Time>().ok().map(|time| json!({ "older_than": time, "keep_revisions": null }))
        }
        _ => None,
    };
    keys.ok_or_else(|| "write keep-revisions=10000, or older-than=1h".to_owned())
}

impl PolicyArgs {
    /// A policy flag on the command line itself, besides `--mode`.
    pub(super) fn typed() -> Option<String> {
        typed_among::<Self>(&["--mode"])
    }

    /// Whether only what was written before some time is to be compacted.
    pub(super) fn compacts_by_age(&self) -> bool {
        self.compaction.as_ref().is_some_and(|compaction| !compaction["older_than"].is_null())
    }

    /// As keys of the file, which have the same names.
    fn keys(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut keys)) = serde_json::to_value(self) else { return Map::new() };
        keys.retain(|_, value| !value.is_null());
        for key in ["mode", "leader", "on_open_snapshot", "verify"] {
            if let Some(Value::String(word)) = keys.get_mut(key) {
                *word = word.replace('-', "_");
            }
        }
        keys
    }
}

impl Connection {
    /// Whether a file, a flag or etcdctl's environment says which cluster it is.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some() || !self.endpoints.is_empty() || self.discovery_srv.is_some()
    }

    /// The settings of the file, or of the flags, with the policy flags applied.
    pub(super) fn settings(&self, policy: Option<&PolicyArgs>) -> anyhow::Result<Settings> {
        self.settings_with(policy, &LockArgs::default(), &ShardArgs::default())
    }

    /// The same for read-only commands, with the way to connect: these commands may accept any certificate.
    pub(super) fn settings_to_observe(&self, policy: Option<&PolicyArgs>) -> anyhow::Result<(Settings, Connect)> {
        let settings = self.read(policy, &LockArgs::default(), &ShardArgs::default())?;
        if !self.insecure_skip_tls_verify {
            return Ok((settings, connect));
        }
        eprintln!("defragd: warning: the members' certificates are not verified: any server may have answered");
        Ok((settings, connect_unverified))
    }

    /// The same, with the lock and shard flags applied too.
    pub(super) fn settings_with(
        &self,
        policy: Option<&PolicyArgs>,
        lock: &LockArgs,
        shards: &ShardArgs,
    ) -> anyhow::Result<Settings> {
        if self.insecure_skip_tls_verify {
            let what = "--insecure-skip-tls-verify only works with the read-only commands status and plan; for all others, \
            trust the members' certificate or its CA with --cacert (tls.ca_file)";
            return Err(UsageError(what.to_owned()).into());
        }
        self.read(policy, lock, shards)
    }

    fn read(&self, policy: Option<&PolicyArgs>, lock: &LockArgs, shards: &ShardArgs) -> anyhow::Result<Settings> {
        // Not again at each reload.
        static WARN: Once = Once::new();
        WARN.call_once(|| {
            for line in etcdctl::ignored(std::env::vars_os(), self.config.is_some()) {
                eprintln!("defragd: warning: {line}");
            }
        });
        let policy = policy.map(PolicyArgs::keys).unwrap_or_default();
        let over = Overrides { policy, lock: lock.keys(), shards: shards.keys() };
        let Some(path) = &self.config else {
            let file = json!({ "clusters": [self.cluster()?] });
            let mut settings = Settings::from_source(&mut Source::from_flags(&file), &over)
                .map_err(|error| keys::as_flags(error, &over, true))?;
            for cluster in &mut settings.clusters {
                cluster.by_flags = true;
            }
            return Ok(settings);
        };
        if let Some(flag) = typed_connection_flag() {
            let what = format!("--config and {flag} cannot be used together: the file already says how to connect");
            return Err(UsageError(what).into());
        }
        Ok(Settings::from_source(&mut Source::open(path)?, &over)
            .map_err(|error| keys::as_flags(error, &over, false))?)
    }

    /// As a cluster of the file.
    fn cluster(&self) -> Result<Value, UsageError> {
        let auth = match (&self.user, &self.password_file) {
            (Some(user), _) if user.contains(':') => {
                let given = if is_typed(&["--user"]) { "--user" } else { "ETCDCTL_USER" };
                let what = format!(
                    "{given} takes only a name here, because other users could read the password: write it to a file, and \
                    pass --password-file or set ETCDCTL_PASSWORD_FILE"
                );
                return Err(UsageError(what));
            }
            (Some(user), Some(file)) => Some(json!({ "username": user, "password_file": file })),
            (None, None) => None,
            (Some(_), None) => return Err(UsageError("--user needs --password-file".to_owned())),
            (None, Some(_)) => return Err(UsageError("--password-file needs --user".to_owned())),
        };
        // etcdctl's default.
        let here = || vec!["127.0.0.1:2379".to_owned()];
        let mut cluster = json!({
            "name": self.cluster_name,
            "endpoints": if self.is_given() { self.endpoints.clone() } else { here() },
            "tls": { "ca_file": self.cacert, "cert_file": self.cert, "key_file": self.key },
            "auth": auth,
        });
        if let Some(domain) = &self.discovery_srv {
            cluster["discovery_srv"] = json!({
                "domain": domain,
                "name": self.discovery_srv_name,
                "insecure": self.insecure_discovery,
                "nameserver": self.discovery_nameserver,
            });
        }
        Ok(cluster)
    }
}

/// A connection flag on the command line itself. etcdctl's environment variables do not conflict with a file:
/// if a file is given, it wins.
pub(super) fn typed_connection_flag() -> Option<String> {
    typed_among::<Connection>(&["--config", "--insecure-skip-tls-verify"])
}

/// Refuses connection flags beside a `--server`, which says where the clusters are.
pub(super) fn refuse_beside_server() -> Result<(), UsageError> {
    let Some(flag) = typed_among::<Connection>(&[]).filter(|_| is_typed(&["--server"])) else {
        return Ok(());
    };
    let what = format!(
        "--server and {flag} cannot be used together: with --server, defragd shows the clusters of that server; without \
        it, it asks etcd itself"
    );
    Err(UsageError(what))
}

/// The clusters that a command is about: all of the settings, or the named one.
pub(super) fn chosen(clusters: Vec<ClusterSettings>, name: Option<&str>) -> Result<Vec<ClusterSettings>, UsageError> {
    let by_flags = clusters.first().filter(|cluster| cluster.by_flags).map(|cluster| cluster.name.clone());
    let found = named(clusters, name, |cluster| &cluster.name, "the file has");
    match (found, by_flags, name) {
        (Err(_), Some(own), Some(name)) => Err(UsageError(format!(
            "--cluster {name}: the flags describe one cluster, and its name is {own}: leave out --cluster, or pass \
            --cluster-name {name}"
        ))),
        (found, ..) => found,
    }
}

/// All of them, or the one with this name. `place` says where they are, such as `the file has`.
pub(super) fn named<T>(
    mut all: Vec<T>,
    name: Option<&str>,
    name_of: impl Fn(&T) -> &str,
    place: &str,
) -> Result<Vec<T>, UsageError> {
    let Some(name) = name else { return Ok(all) };
    let names = all.iter().map(&name_of).collect::<Vec<_>>().join(", ");
    all.retain(|one| name_of(one) == name);
    if all.is_empty() { Err(UsageError(format!("there is no cluster {name:?}; {place}: {names}"))) } else { Ok(all) }
}

/// The one cluster that a command is about.
pub(super) fn one_cluster(settings: Settings, name: Option<&str>) -> anyhow::Result<ClusterSettings> {
    let mut chosen = chosen(settings.clusters, name)?;
    if chosen.len() > 1 {
        let names: Vec<_> = chosen.iter().map(|cluster| cluster.name.as_str()).collect();
        return Err(UsageError(format!("choose one cluster: {}", names.join(", "))).into());
    }
    chosen.pop().context("one is there")
}

/// The journal's directory; by default a system directory for root, else one in the user's home.
pub(super) fn data_dir(given: Option<PathBuf>) -> PathBuf {
    let state = || {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let state = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()).map(PathBuf::from);
        state.or_else(|| home.map(|home| home.join(".local/state"))).map(|state| state.join("defragd"))
    };
    let is_root = procfs::process::Process::myself().and_then(|process| process.uid()).is_ok_and(|uid| uid == 0);
    given.or_else(|| if is_root { None } else { state() }).unwrap_or_else(|| PathBuf::from("/var/lib/defragd"))
}
