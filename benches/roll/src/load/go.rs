//! Clients in Go: those of an API server, and etcd's own.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use testkit::{EtcdCluster, GoClients, GoSample, Haproxy, KubeApiserver, Tools, until};
use tokio::sync::Mutex;

use super::{Go, Kind, Report, Sample};

/// An API server takes some ten seconds until it serves, its clients some more until each leads.
const AT_WORK: Duration = Duration::from_mins(2);
const LEADERS: usize = 8;

/// Running clients, each group with what its writes and lists are.
pub(super) struct Group {
    clients: GoClients,
    kinds: fn(&str) -> Option<Kind>,
}

/// All groups, and what they need.
pub(super) struct Groups {
    all: Vec<Group>,
    // Ends after its clients.
    _api_server: Option<KubeApiserver>,
    _proxy: Option<Haproxy>,
}

impl Groups {
    /// Starts them and waits until they are at work.
    pub(super) async fn start(go: Go, cluster: &EtcdCluster, tools: &Tools) -> Result<Self> {
        match go {
            Go::ApiServer | Go::ApiServerBehindProxy => {
                let path = |name: &str| -> PathBuf { cluster.dir().join(name) };
                let proxy = match go {
                    Go::ApiServerBehindProxy => Some(Haproxy::start(tools, cluster).await?),
                    _ => None,
                };
                let urls = proxy.as_ref().map_or_else(|| cluster.endpoints(), |proxy| vec![proxy.url().to_owned()]);
                let log = path("kube-apiserver.log");
                let api_server = KubeApiserver::start_behind(tools, cluster, &urls, &log).await?;
                let kubeconfig = api_server.admin_kubeconfig(path("kubeconfig"))?;
                let leaders = format!("--leaders={LEADERS}");
                let flags = [&leaders, "--writers=4", "--listers=1", "--watchers=2"];
                let clients = GoClients::of_api_server(tools, &kubeconfig, &flags)?;
                let group = Group { clients, kinds: api }.at_work(LEADERS).await?;
                Ok(Self { all: vec![group], _api_server: Some(api_server), _proxy: proxy })
            }
            Go::Etcd => {
                let flags = ["--leaders=0", "--writers=4", "--listers=4", "--watchers=0", "--patience=5s"];
                let checked = [&flags[..], &["--health-checks"]].concat();
                let plain = Group { clients: GoClients::of_etcd(tools, cluster, &flags)?, kinds: plain };
                let checked = Group { clients: GoClients::of_etcd(tools, cluster, &checked)?, kinds: checking };
                Ok(Self {
                    all: vec![plain.at_work(0).await?, checked.at_work(0).await?],
                    _api_server: None,
                    _proxy: None,
                })
            }
        }
    }

    /// Ends them; adds what they saw since `began` to the report.
    pub(super) async fn stop(self, began: jiff::Timestamp, report: &mut Report) -> Result<()> {
        for group in self.all {
            let samples = group.clients.stop().await?;
            report.count(began, group.kinds, samples);
        }
        Ok(())
    }
}

impl Group {
    /// Waits until each of the leaders leads and something is written.
    async fn at_work(self, leaders: usize) -> Result<Self> {
        let clients = Mutex::new(self.clients);
        until("the clients to be at work", AT_WORK, || async {
            let samples = clients.lock().await.so_far()?;
            let done = |kind: &str| samples.iter().filter(|one| one.kind == kind && one.error.is_empty()).count();
            ensure!(done("elected") == leaders, "{} of {leaders} lead", done("elected"));
            ensure!(done("write") > 0 && done("list") > 0, "nothing is written and listed");
            Ok(())
        })
        .await?;
        Ok(Self { clients: clients.into_inner(), ..self })
    }
}

impl Report {
    /// Takes what Go clients did since `began`, when the load began.
    fn count(&mut self, began: jiff::Timestamp, kinds: fn(&str) -> Option<Kind>, samples: Vec<GoSample>) {
        for GoSample { kind, due, took, error } in samples {
            // Warming up is not part of the load.
            let since = due.checked_sub(began.as_microsecond()).and_then(|since| u64::try_from(since).ok());
            let Some(due) = since.map(Duration::from_micros) else { continue };
            self.elections_lost += u32::from(kind == "election_lost");
            self.watch_restarts += u32::from(kind == "watch_restart");
            if let Some(kind) = kinds(&kind) {
                self.samples.push(Sample { kind, due, took: Duration::from_micros(took), error });
            }
        }
    }
}

fn api(kind: &str) -> Option<Kind> {
    match kind {
        "write" => Some(Kind::ApiWrite),
        "list" => Some(Kind::ApiList),
        "renewal" => Some(Kind::ApiRenewal),
        "watch" => Some(Kind::ApiWatch),
        _ => None,
    }
}

fn plain(kind: &str) -> Option<Kind> {
    match kind {
        "write" => Some(Kind::GoPut),
        "list" => Some(Kind::GoRange),
        _ => None,
    }
}

fn checking(kind: &str) -> Option<Kind> {
    match kind {
        "write" => Some(Kind::CheckedPut),
        "list" => Some(Kind::CheckedRange),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_before_the_load_does_not_count() {
        let began = jiff::Timestamp::from_microsecond(10_000_000).expect("a time");
        let one = |kind: &str, due: i64, error: &str| GoSample {
            kind: kind.to_owned(),
            due,
            took: 7,
            error: error.to_owned(),
        };
        let samples = vec![
            one("write", 9_999_999, ""),
            one("write", 12_000_000, "504"),
            one("elected", 12_000_000, ""),
            one("election_lost", 9_000_000, "lost"),
            one("election_lost", 13_000_000, "lost"),
            one("watch_restart", 13_000_000, "closed"),
        ];
        let mut report = Report::default();
        report.count(began, api, samples);
        let [sample] = &report.samples[..] else { panic!("{report:?}") };
        assert_eq!((sample.kind, sample.due, &*sample.error), (Kind::ApiWrite, Duration::from_secs(2), "504"));
        assert_eq!((report.elections_lost, report.watch_restarts), (1, 1));
    }
}
