//! A rig whose defragd has a configuration file, with gates in it.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use testkit::{Defragd, Exposition};

use crate::rig::{Rig, TOKEN, binary};

impl Rig {
    /// A file with the rig's cluster and these gates, in mode enforce and with times that fit a test. JSON is YAML.
    pub(crate) fn config(&self, gates: &Value) -> PathBuf {
        let file = self.path("config.yaml");
        std::fs::write(&file, json!({"clusters": [self.cluster_keys(gates)]}).to_string()).unwrap();
        file
    }

    /// The cluster in that file.
    pub(crate) fn cluster_keys(&self, gates: &Value) -> Value {
        let mut cluster = json!({
            "name": "demo",
            "endpoints": self.cluster.endpoints(),
            "policy": {"mode": "enforce", "on_open_snapshot": "ignore", "min_reclaimable": "4MiB", "pause_between_members": "1s",
                "recovery_timeout": "20s", "cooldown": "0s"},
            "gates": gates,
        });
        if let Some(pki) = self.cluster.pki() {
            let client = pki.client();
            cluster["tls"] = json!({"ca_file": pki.ca(), "cert_file": client.cert, "key_file": client.key});
        }
        cluster
    }

    /// `defragd serve` with that file, on a free port with a token.
    pub(crate) async fn serve_file(&self, config: &Path, extra: &[&str]) -> Defragd {
        let args = self.serve_args(config, extra);
        Defragd::start(binary(), &args, &self.path("defragd.log")).await.unwrap()
    }

    /// The same, with one gate that always passes: a member's port.
    pub(crate) async fn serve_with_a_gate(&self) -> Defragd {
        let address = self.cluster.endpoints()[0].trim_start_matches("https://").to_owned();
        self.serve_file(&self.config(&json!([{"name": "port", "tcp": {"address": address}}])), &[]).await
    }

    /// The arguments of that.
    pub(crate) fn serve_args(&self, config: &Path, extra: &[&str]) -> Vec<String> {
        let token = self.path("token");
        std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let mut args = vec![
            format!("--config={}", config.display()),
            format!("--data-dir={}", self.path("journal").display()),
            format!("--web.bearer-token-file={}", token.display()),
        ];
        args.extend(extra.iter().map(|flag| (*flag).to_owned()));
        args
    }

    /// A command with that file, to its end.
    pub(crate) async fn with_file(&self, config: &Path, command: &[&str]) -> Output {
        let mut args: Vec<_> = command.iter().map(|word| (*word).to_owned()).collect();
        args.push(format!("--config={}", config.display()));
        if matches!(command[0], "run" | "plan") {
            args.push(format!("--data-dir={}", self.path("journal").display()));
        }
        defragd(&args).await
    }

    /// `defragd runs show` of a run, as a table or as JSON.
    pub(crate) async fn shown(&self, run: &str, output: &str) -> String {
        let dir = format!("--data-dir={}", self.path("journal").display());
        let done = defragd(&["runs", "show", run, &dir, "-o", output].map(str::to_owned)).await;
        assert!(done.status.success(), "{}", said(&done));
        String::from_utf8(done.stdout).unwrap()
    }
}

/// The program with these arguments, to its end.
pub(crate) async fn defragd(args: &[String]) -> Output {
    tokio::process::Command::new(binary()).args(args).kill_on_drop(true).output().await.unwrap()
}

/// Everything that a command has written.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// What a command has written as JSON.
pub(crate) fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

/// How often a gate was checked with this result.
pub(crate) fn checks(metrics: &Exposition, gate: &str, moment: &str, result: &str) -> Option<u64> {
    let labels = [("etcd_cluster", "demo"), ("gate", gate), ("moment", moment), ("result", result)];
    metrics.count("defragd_gate_checks_total", &labels)
}

/// A run's checks of one gate, as (moment, passed).
pub(crate) fn checked(run: &Value, gate: &str) -> Vec<(String, bool)> {
    let all = run["gates"].as_array().unwrap().iter().filter(|result| result["gate"] == gate);
    all.map(|result| (result["moment"].as_str().unwrap().to_owned(), result["passed"].as_bool().unwrap())).collect()
}

/// The first check of a run that failed.
pub(crate) fn failed_check(run: &Value) -> &Value {
    let failed = run["gates"].as_array().unwrap().iter().find(|result| result["passed"] == false);
    failed.unwrap_or_else(|| panic!("no gate failed: {run}"))
}
