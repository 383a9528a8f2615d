//! The running `defragd serve` that a command is for, and whether a server is responsible for a cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::args::{Connection, UsageError, is_typed};
use crate::{
    adapters::{
        journal::SqliteJournal,
        outgoing::{CallError, ControlClient},
    },
    app::{connect::connect, observer},
    config::ClusterSettings,
    core::{cluster::ClusterId, history::RunId, plan_view::PlanView, policy::Mode, status_view::StatusView},
};

pub(super) const DEFAULT_URL: &str = "http://127.0.0.1:9379";
/// A server on this machine answers at once.
const PATIENCE: Duration = Duration::from_secs(3);
/// For the cluster's id; if no member answers within this time, the endpoints are compared.
const OBSERVE_WITHIN: Duration = Duration::from_secs(5);

/// The server, and who is acting.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Server")]
#[expect(clippy::struct_field_names, reason = "clap's ids, which must differ from those of other flags")]
pub(super) struct Server {
    /// URL of the running `defragd serve` [default: the one at 127.0.0.1:9379]
    #[arg(long = "server", env = "DEFRAGD_SERVER", value_name = "URL")]
    server_url: Option<String>,
    /// File with the server's bearer token
    #[arg(long = "token-file", env = "DEFRAGD_TOKEN_FILE", value_name = "FILE")]
    server_token_file: Option<PathBuf>,
    /// CA certificates to trust for https
    #[arg(long = "server-ca-file", env = "DEFRAGD_SERVER_CA_FILE", value_name = "FILE")]
    server_ca_file: Option<PathBuf>,
    /// Your name, for the journal [default: $USER]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

/// What a command needs to know of a cluster of a server.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ServedCluster {
    pub(super) name: String,
    cluster_id: Option<ClusterId>,
    endpoints: Vec<String>,
    pub(super) acts: bool,
    pub(super) mode: Mode,
    pub(super) active_run: Option<RunId>,
    pub(super) queued_run: Option<RunId>,
    pub(super) lock: Option<LockHolder>,
}

/// The replica that holds the cluster's lock, if it is another one.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct LockHolder {
    pub(super) url: Option<String>,
}

/// The server that is responsible for a cluster.
#[derive(Clone, Debug)]
pub(super) struct Responsible {
    pub(super) server: Server,
    pub(super) cluster: ServedCluster,
}

impl Server {
    pub(super) fn name_of_operator(&self) -> String {
        let user = || std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_default();
        self.by.clone().unwrap_or_else(user)
    }

    pub(super) fn url(&self) -> &str {
        self.server_url.as_deref().unwrap_or(DEFAULT_URL)
    }

    /// The same operator at another server.
    pub(super) fn at(&self, url: &str) -> Self {
        Self { server_url: Some(url.to_owned()), ..self.clone() }
    }

    fn client(&self) -> Result<ControlClient, CallError> {
        ControlClient::new(self.url(), self.server_token_file.as_ref(), self.server_ca_file.as_ref())
    }

    pub(super) async fn post(&self, path: [&str; 3], mut body: Value) -> Result<Value, CallError> {
        body["by"] = json!(self.name_of_operator());
        self.client()?.post(path, &body).await
    }

    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, CallError> {
        self.client()?.get(path).await
    }

    pub(super) async fn clusters(&self) -> Result<Vec<ServedCluster>, CallError> {
        #[derive(Deserialize)]
        struct Answer {
            clusters: Vec<ServedCluster>,
        }
        let answer = self.get(&["clusters"]).await?;
        let answer = serde_json::from_value::<Answer>(answer).map_err(|error| self.not_understood(&error))?;
        Ok(answer.clusters)
    }

    pub(super) async fn status(&self, cluster: &str) -> Result<StatusView, CallError> {
        let members = self.get(&["clusters", cluster, "members"]).await?;
        serde_json::from_value(members).map_err(|error| self.not_understood(&error))
    }

    pub(super) async fn plan(&self, cluster: &str, as_manual: bool) -> Result<PlanView, CallError> {
        let plan = self.client()?.plan(cluster, as_manual).await?;
        serde_json::from_value(plan).map_err(|error| self.not_understood(&error))
    }

    fn not_understood(&self, error: &serde_json::Error) -> CallError {
        CallError::NotUnderstood { url: self.url().to_owned(), detail: error.to_string() }
    }

    /// The server that is responsible for a cluster, if there is one: that of `--server`; else the one that holds the
    /// journal in `data_dir`, or answers on loopback, if it serves this cluster. `own` is the cluster as the command's
    /// flags or file describe it; without it, the cluster is named by `name`, or it is the server's only one.
    pub(super) async fn responsible(
        &self,
        own: Option<&ClusterSettings>,
        name: Option<&str>,
        data_dir: &Path,
    ) -> anyhow::Result<Option<Responsible>> {
        // Typed, it replaces the connection; from the environment, it is a default like the others.
        let own = own.filter(|_| !is_typed(&["--server"]));
        for (server, clusters) in self.candidates(data_dir).await? {
            if let Some(found) = server.find(clusters, own, name).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first server, with all its clusters.
    pub(super) async fn all(&self, data_dir: &Path) -> anyhow::Result<Option<(Self, Vec<ServedCluster>)>> {
        Ok(self.candidates(data_dir).await?.into_iter().next())
    }

    /// The servers that answer, with their clusters.
    async fn candidates(&self, data_dir: &Path) -> anyhow::Result<Vec<(Self, Vec<ServedCluster>)>> {
        if self.server_url.is_some() {
            return Ok(vec![(self.clone(), self.clusters().await?)]);
        }
        let mut found = Vec::new();
        for url in SqliteJournal::url_of_holder(data_dir).into_iter().chain([DEFAULT_URL.to_owned()]) {
            let there = self.at(&url);
            let Ok(clusters) = timeout(PATIENCE, there.clusters()).await else { continue };
            match clusters {
                Ok(clusters) => found.push((there, clusters)),
                // Another program, or none.
                Err(
                    CallError::Unreachable { .. }
                    | CallError::NotUnderstood { .. }
                    | CallError::Refused { status: 404, .. },
                ) => {}
                Err(error) => anyhow::bail!(
                    "cannot find out whether the server on this machine is responsible for the cluster: {error}; pass \
                     --token-file, or --server with its URL"
                ),
            }
        }
        Ok(found)
    }

    async fn find(
        &self,
        mut clusters: Vec<ServedCluster>,
        own: Option<&ClusterSettings>,
        name: Option<&str>,
    ) -> anyhow::Result<Option<Responsible>> {
        clusters.retain(|cluster| cluster.acts);
        let names = clusters.iter().map(|cluster| cluster.name.clone()).collect::<Vec<_>>().join(", ");
        let found = match (own, name) {
            (Some(own), _) => {
                let id = id_of(own).await;
                clusters.into_iter().find(|cluster| match (cluster.cluster_id, id) {
                    (Some(theirs), Some(ours)) => theirs == ours,
                    _ => cluster.endpoints.iter().any(|endpoint| own.endpoints.contains(endpoint)),
                })
            }
            (None, Some(name)) => clusters.into_iter().find(|cluster| cluster.name == name),
            (None, None) if clusters.len() > 1 => {
                return Err(UsageError(format!("choose one cluster with --cluster: {names}")).into());
            }
            (None, None) => clusters.pop(),
        };
        if found.is_none() && own.is_none() && self.server_url.is_some() && is_typed(&["--server"]) {
            let name = name.map_or_else(|| "a cluster".to_owned(), |name| format!("cluster {name:?}"));
            let what = format!("the server at {} starts no runs of {name}; it serves: {names}", self.url());
            return Err(UsageError(what).into());
        }
        Ok(found.map(|cluster| Responsible { server: self.clone(), cluster }))
    }
}

/// etcd's id of the cluster, if a member answers.
async fn id_of(cluster: &ClusterSettings) -> Option<ClusterId> {
    let etcd = connect(cluster).ok()?;
    let observed = timeout(OBSERVE_WITHIN, Box::pin(observer::observe(&etcd))).await;
    observed.ok()?.ok().map(|facts| facts.cluster_id)
}

impl Connection {
    /// Whether a file or a flag says which cluster it is.
    pub(super) fn is_given(&self) -> bool {
        self.config.is_some() || self.has_endpoints()
    }
}
