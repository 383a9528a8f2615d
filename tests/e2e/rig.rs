//! What most tests start from: a fragmented cluster and a defragd that watches it.

use std::{
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{DefragWatch, Defragd, EtcdCluster, EtcdSpec, EtcdVersion, Tools, fragment, until};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const TOKEN: &str = testkit::Home::TOKEN;
/// A minute is long for anything here, also on two busy cores.
pub(crate) const MINUTE: Duration = Duration::from_mins(1);

/// The program under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_defragd"))
}

/// A cluster with its tools and a directory for logs, tokens and journals.
pub(crate) struct Rig {
    pub(crate) tools: Tools,
    pub(crate) cluster: EtcdCluster,
    pub(crate) dir: TempDir,
}

impl Rig {
    /// Three healthy members with mutual TLS.
    pub(crate) async fn new(version: EtcdVersion) -> Self {
        Self::with(EtcdSpec::new(version)).await
    }

    pub(crate) async fn with(spec: EtcdSpec) -> Self {
        let tools = Tools::find().unwrap();
        let cluster = EtcdCluster::start(&tools, &spec).await.unwrap();
        Self { tools, cluster, dir: tempfile::tempdir().unwrap() }
    }

    /// Fills every member's file to 40 MiB, of which about 8 MiB stay in use.
    pub(crate) async fn fragmented(version: EtcdVersion) -> Self {
        let rig = Self::new(version).await;
        rig.fragment().await;
        rig
    }

    /// The same for tests that know who leads.
    pub(crate) async fn steady(version: EtcdVersion) -> Self {
        let rig = Self::with(EtcdSpec::new(version).patient()).await;
        rig.fragment().await;
        rig
    }

    pub(crate) async fn fragment(&self) {
        fragment(&self.cluster, 40 * MIB, 8 * MIB).await.unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The flags that point defragd at the cluster, with thresholds that fit a small file.
    pub(crate) fn flags(&self) -> Vec<String> {
        let mut flags = self.cluster.connection_flags();
        let small = ["--min-reclaimable=4MiB", "--pause-between-members=1s", "--recovery-timeout=20s"];
        flags.extend(small.map(str::to_owned));
        // Tests hold defragmentations by open snapshots.
        flags.push("--on-open-snapshot=ignore".to_owned());
        flags.push(format!("--data-dir={}", self.path("journal").display()));
        flags
    }

    /// `defragd serve` on a free port with a token, and these flags.
    pub(crate) async fn serve(&self, extra: &[&str]) -> Defragd {
        let token = self.path("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let mut args = self.flags();
        args.push("--cluster-name=demo".to_owned());
        args.push(format!("--web.bearer-token-file={}", token.display()));
        args.extend(extra.iter().map(|flag| (*flag).to_owned()));
        Defragd::start(binary(), &args, &self.path("defragd.log")).await.unwrap()
    }

    /// Runs a command of defragd to its end.
    pub(crate) async fn command(&self, command: &str, extra: &[&str]) -> Output {
        let mut args = vec![command.to_owned()];
        let flags = if command == "status" { self.cluster.connection_flags() } else { self.flags() };
        args.extend(flags.into_iter().filter(|flag| command == "run" || !flag.starts_with("--data-dir")));
        args.extend(extra.iter().map(|flag| (*flag).to_owned()));
        tokio::process::Command::new(binary()).args(args).kill_on_drop(true).output().await.unwrap()
    }

    /// How many defragmentations each member has done, by its own metrics. A member that is down counts none.
    pub(crate) async fn defrags(&self) -> Vec<u64> {
        let mut done = Vec::new();
        for index in 0..self.cluster.len() {
            done.push(self.cluster.defrags_done(index).await.unwrap_or(0));
        }
        done
    }

    /// Every member's file is below 1.3 times of what is in use.
    pub(crate) async fn assert_tight(&self) {
        for status in self.cluster.statuses().await.unwrap() {
            assert!(status.size * 10 < status.in_use * 13, "{} bytes for {} in use", status.size, status.in_use);
        }
    }
}

/// A notification as Alertmanager sends it, with one alert.
pub(crate) fn notification(status: &str, labels: &[(&str, &str)], fingerprint: &str) -> Value {
    let labels: serde_json::Map<_, _> = labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "version": "4",
        "groupKey": "{}:{etcd_cluster=\"demo\"}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "defragd",
        "groupLabels": {},
        "commonLabels": labels,
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example",
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": {"summary": "x"},
            "startsAt": "2026-11-23T10:00:00.000Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "http://prometheus.example",
            "fingerprint": fingerprint,
        }],
    })
}

/// The alert that concerns the rig's cluster.
pub(crate) fn firing() -> Value {
    notification("firing", &[("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", "demo")], "f1")
}

/// The run with this number once it has ended, and its cluster is shown and counted as it is afterwards: that comes a
/// moment after the record of the end.
pub(crate) async fn ended_run(defragd: &Defragd, id: i64) -> Value {
    // A run after a failed one waits for a minute.
    until("the run to end", 3 * MINUTE, || async {
        let run = defragd.json(&format!("/api/v1/runs/{id}")).await?;
        anyhow::ensure!(run["outcome"].is_string(), "it is under way: {run}");
        let all = defragd.json("/api/v1/clusters").await?;
        let has = |cluster: &Value| cluster["active_run"] == id || cluster["queued_run"] == id;
        let is_open = all["clusters"].as_array().is_some_and(|clusters| clusters.iter().any(has));
        anyhow::ensure!(!is_open, "it is open: {all}");
        Ok(run)
    })
    .await
    .unwrap()
}

/// The names of the members in a run, in order.
pub(crate) fn members_of(run: &Value) -> Vec<String> {
    run["members"].as_array().unwrap().iter().map(|member| member["member"].as_str().unwrap().to_owned()).collect()
}

/// The member that was defragmented first in run 1, by the servers' own logs.
pub(crate) async fn first_defragmented(watch: &DefragWatch, defragd: &Defragd) -> usize {
    let first = || watch.timeline().order().first().copied();
    until("the first member to be defragmented", MINUTE, || async {
        let run = defragd.json("/api/v1/runs/1").await?;
        match first() {
            Some(member) => Ok(Some(member)),
            // The servers' logs are seen a little later than their actions.
            None if run["outcome"].is_string() && run["members"].as_array().is_none_or(Vec::is_empty) => {
                eprintln!("it ended before: {run}");
                Ok(None)
            }
            None => anyhow::bail!("none yet: {run}"),
        }
    })
    .await
    .unwrap()
    .expect("the run to come to its first member")
}
