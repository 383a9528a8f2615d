//! The running `defragd serve` that a command is for, and whether a server is responsible for a cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::args::{self, UsageError, is_typed};
use crate::{
    adapters::{
        journal::SqliteJournal,
        outgoing::{CallError, ClientSettings, ControlClient},
    },
    app::{connect::connect, observer},
    config::{ClusterSettings, ShardSettings},
    core::{
        cluster::ClusterId, history::RunId, plan_view::PlanView, policy::Mode, shard::Shard, status_view::StatusView,
    },
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

/// A server that answered, with all its clusters.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) server: Server,
    pub(super) clusters: Vec<ServedCluster>,
    /// Which part of the clusters it has, if they are divided.
    pub(super) shard: Option<Shard>,
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
        let access = ClientSettings::of_flags(self.server_token_file.clone(), self.server_ca_file.clone());
        ControlClient::new(self.url(), access)
    }

    pub(super) async fn post(&self, path: [&str; 3], mut body: Value) -> Result<Value, CallError> {
        body["by"] = json!(self.name_of_operator());
        self.client()?.post(path, &body).await.map_err(|error| self.explained(error))
    }

    pub(super) async fn get(&self, path: &[&str]) -> Result<Value, CallError> {
        self.client()?.get(path).await.map_err(|error| self.explained(error))
    }

    /// The same error, with what to pass if the server wants another token.
    fn explained(&self, error: CallError) -> CallError {
        let (url, status, detail, reason) = match error {
            CallError::Refused { url, status: status @ (401 | 403), detail, reason }
                if detail.contains("bearer token") =>
            {
                (url, status, detail, reason)
            }
            error => return error,
        };
        let admin =
            "the file of the server's admin token (its --web.admin-token-file, or else --web.bearer-token-file)";
        let advice = match &self.server_token_file {
            None => format!("pass --token-file with {admin}"),
            Some(file) => format!("the token in {} is another one; pass --token-file with {admin}", file.display()),
        };
        CallError::Refused { url, status, detail: format!("{detail}: {advice}"), reason }
    }

    /// All clusters of this server, or the one with this name.
    pub(super) fn only(
        &self,
        clusters: Vec<ServedCluster>,
        name: Option<&str>,
    ) -> Result<Vec<ServedCluster>, UsageError> {
        args::named(clusters, name, |cluster| &cluster.name, &format!("the server at {} has", self.url()))
    }

    /// The server with its clusters, if it answers.
    pub(super) async fn served(&self) -> Result<Candidate, CallError> {
        #[derive(Deserialize)]
        struct Answer {
            clusters: Vec<ServedCluster>,
            shard: Option<Shard>,
        }
        let answer = self.get(&["clusters"]).await?;
        let Answer { clusters, shard } = serde_json::from_value(answer).map_err(|error| self.not_understood(&error))?;
        Ok(Candidate { server: self.clone(), clusters, shard })
    }

    pub(super) async fn status(&self, cluster: &str) -> Result<StatusView, CallError> {
        let members = self.get(&["clusters", cluster, "members"]).await?;
        serde_json::from_value(members).map_err(|error| self.not_understood(&error))
    }

    pub(super) async fn plan(&self, cluster: &str, as_manual: bool) -> Result<PlanView, CallError> {
        let plan = self.client()?.plan(cluster, as_manual).await.map_err(|error| self.explained(error))?;
        serde_json::from_value(plan).map_err(|error| self.not_understood(&error))
    }

    fn not_understood(&self, error: &serde_json::Error) -> CallError {
        CallError::NotUnderstood { url: self.url().to_owned(), detail: error.to_string() }
    }

    /// The server that is responsible for a cluster, if there is one: that of `--server`; else the one that holds the
    /// journal in `data_dir`, or answers on loopback, if it serves this cluster. `own` is the cluster as the command's
    /// flags or file describe it; without it, the cluster is named by `name`, or it is the server's only one. The error
    /// says so if the cluster with this name belongs to another shard than the server.
    pub(super) async fn responsible(
        &self,
        own: Option<&ClusterSettings>,
        name: Option<&str>,
        data_dir: &Path,
    ) -> anyhow::Result<Option<Responsible>> {
        self.responsible_among(&self.candidates(data_dir).await?, own, name).await
    }

    /// The same, of servers that were asked already.
    pub(super) async fn responsible_among(
        &self,
        candidates: &[Candidate],
        own: Option<&ClusterSettings>,
        name: Option<&str>,
    ) -> anyhow::Result<Option<Responsible>> {
        // Typed, it replaces the connection; from the environment, it is a default like the others.
        let own = own.filter(|_| !is_typed(&["--server"]));
        let id = match own {
            Some(own) if !candidates.is_empty() => id_of(own).await,
            _ => None,
        };
        for Candidate { server, clusters, .. } in candidates {
            if let Some(found) = find(clusters, own.map(|own| (own, id)), name)? {
                return Ok(Some(Responsible { server: server.clone(), cluster: found.clone() }));
            }
        }
        for candidate in candidates {
            if let Some(elsewhere) = candidate.server.elsewhere(name).await {
                return Err(UsageError(format!("{elsewhere}: pass --server with the URL of that shard")).into());
            }
        }
        // A server that was chosen, and no other place where the cluster could be.
        if let (None, Some(url)) = (own, &self.server_url) {
            let name = name.map_or_else(|| "a cluster".to_owned(), |name| format!("cluster {name:?}"));
            let serves = candidates.iter().flat_map(|one| names(&one.clusters)).collect::<Vec<_>>().join(", ");
            let serves = if serves.is_empty() { "it acts on none".to_owned() } else { format!("it serves: {serves}") };
            return Err(UsageError(format!("the server at {url} starts no runs of {name}; {serves}")).into());
        }
        Ok(None)
    }

    /// The server's own words if the cluster belongs to another shard than the server.
    async fn elsewhere(&self, name: Option<&str>) -> Option<String> {
        match self.status(name?).await {
            Err(CallError::Refused { status: 421, detail, .. }) => Some(detail),
            _ => None,
        }
    }

    /// The server of the shard that the cluster belongs to, if the configuration names one and no flag another.
    pub(super) fn of_owner(&self, shards: &ShardSettings, cluster: &str) -> Self {
        match (&self.server_url, shards.owner_of(cluster).and_then(|owner| shards.url_of(owner))) {
            (None, Some(url)) => {
                let server_ca_file = self.server_ca_file.clone().or_else(|| shards.tls.ca_file.clone());
                Self { server_ca_file, ..self.at(&url) }
            }
            _ => self.clone(),
        }
    }

    /// The servers that answer.
    pub(super) async fn candidates(&self, data_dir: &Path) -> anyhow::Result<Vec<Candidate>> {
        if self.server_url.is_some() {
            return Ok(vec![self.served().await?]);
        }
        let mut found = Vec::new();
        let holder = SqliteJournal::url_of_holder(data_dir).map(|url| url.trim_end_matches('/').to_owned());
        let default = Some(DEFAULT_URL.to_owned()).filter(|default| holder.as_ref() != Some(default));
        for url in holder.into_iter().chain(default) {
            let there = self.at(&url);
            let Ok(served) = timeout(PATIENCE, there.served()).await else { continue };
            match served {
                Ok(candidate) => found.push(candidate),
                // Another program, or none.
                Err(
                    CallError::Unreachable { .. }
                    | CallError::NotUnderstood { .. }
                    | CallError::Refused { status: 404, .. },
                ) => {}
                Err(error) => anyhow::bail!(
                    "cannot find out whether the server on this machine is responsible for the cluster: {error}. \
                     To ask another server: --server with its URL"
                ),
            }
        }
        Ok(found)
    }
}

/// Of those on which the server acts.
fn names(clusters: &[ServedCluster]) -> Vec<&str> {
    clusters.iter().filter(|cluster| cluster.acts).map(|cluster| cluster.name.as_str()).collect()
}

/// The cluster with etcd's id of the command's own one, or with a common endpoint while one of the ids is not known;
/// else the one with this name; else the only one.
fn find<'a>(
    clusters: &'a [ServedCluster],
    own: Option<(&ClusterSettings, Option<ClusterId>)>,
    name: Option<&str>,
) -> Result<Option<&'a ServedCluster>, UsageError> {
    let mut acting = clusters.iter().filter(|cluster| cluster.acts);
    let found = match (own, name) {
        (Some((own, id)), _) => acting.find(|cluster| match (cluster.cluster_id, id) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => cluster.endpoints.iter().any(|endpoint| own.endpoints.contains(endpoint)),
        }),
        (None, Some(name)) => acting.find(|cluster| cluster.name == name),
        (None, None) if names(clusters).len() > 1 => {
            let names = names(clusters).join(", ");
            return Err(UsageError(format!("choose one cluster with --cluster: {names}")));
        }
        (None, None) => acting.next(),
    };
    Ok(found)
}

/// etcd's id of the cluster, if a member answers.
async fn id_of(cluster: &ClusterSettings) -> Option<ClusterId> {
    let etcd = connect(cluster).ok()?;
    let observed = timeout(OBSERVE_WITHIN, Box::pin(observer::observe_all(&etcd))).await;
    observed.ok()?.ok().map(|facts| facts.cluster_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_of_a_shard_is_reached_with_the_shards_authority_unless_another_is_given() {
        let nobody = Server { server_url: None, server_token_file: None, server_ca_file: None, by: None };
        let mut shards = ShardSettings { total: 2, ..ShardSettings::default() };
        assert_eq!(nobody.of_owner(&shards, "prod-2").url(), DEFAULT_URL);
        shards.url = Some("https://defragd-{shard}:9379".to_owned());
        shards.tls.ca_file = Some("shards.pem".into());
        let of = |server: &Server| {
            let there = server.of_owner(&shards, "prod-2");
            (there.url().to_owned(), there.server_ca_file)
        };
        assert_eq!(of(&nobody), ("https://defragd-1:9379".to_owned(), Some("shards.pem".into())));
        let given = Server { server_ca_file: Some("mine.pem".into()), ..nobody.clone() };
        assert_eq!(of(&given), ("https://defragd-1:9379".to_owned(), Some("mine.pem".into())));
        assert_eq!(of(&nobody.at("https://other:1")), ("https://other:1".to_owned(), None));
    }
}
