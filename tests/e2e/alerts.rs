//! Each shipped alert fires from its real cause: one etcd cluster, three defragd that watch it under different names,
//! and a Prometheus with the shipped rules. No sample is made up.
//!
//! | alert | caused by |
//! |---|---|
//! | `EtcdQuotaExhaustionPredicted` | keys that are written and kept |
//! | `EtcdFragmentationHigh`, `EtcdQuotaUsageHigh`, `EtcdQuotaUsageCritical` | 180 MiB overwritten and compacted, under a quota of 192 MiB |
//! | `DefragdRemediationStalled` | that, and mode observe |
//! | `DefragdSnapshotOpen` | unread snapshots of all members, before the next run |
//! | `DefragdRunStuck`, `DefragdMemberUnreachable` | a member that freezes (SIGSTOP) when another one of the run is done |
//! | `DefragdRunFailed`, `DefragdBreakerOpen` | the same run, once `recovery_timeout` is over; `breaker_failures: 1` |
//! | `DefragdDefragOverdue` | a defragmentation that does not end; `DefragdMemberUnreachable` stays silent |
//! | `EtcdFragmentationReturns`, `EtcdNoSpace` | overwritten until the quota is passed, after a run that helped |
//! | `DefragdNoGain` | a member that was defragmented a moment ago is again, by a rule that is always true |
//! | `EtcdHashMismatch` | a member whose file is changed underneath; `verify: hash` |
//! | `EtcdCorrupt` | the alarm, armed as etcd's own check of the data does |
//! | `DefragdClusterDuplicate` | a second entry for the cluster, loaded by a reload |
//! | `DefragdReloadFailed` | a reload of a file that ends in the middle of a line |
//! | `DefragdWebhookRejected` | a notification with another token |
//! | `DefragdNotificationFailed` | a run that is reported to a port at which nothing listens |
//! | `DefragdDown` | a defragd that is killed |
//! | `DefragdShardsDisagree`, `DefragdShardMissing` | one of three shards in its place, beside processes without shards |
//! | `DefragdClusterUnreachable` | all members stopped |
//!
//! Only times of the rules are changed, see [`hastened`]; the thresholds are the shipped ones.

use std::{collections::BTreeSet, path::Path, time::Duration};

use serde_json::json;
use testkit::{
    DefragWatch, Defragd, EtcdSpec, FiringAlert, OpenSnapshot, Port, Prometheus, exhaust_quota, fragment, until,
};
use tokio::time::{interval, sleep};

use crate::{
    faults,
    rig::{MIB, MINUTE, Rig, TOKEN, ended_run, first_defragmented, notification},
    verify::change_one_underneath,
};

/// 0.9 of it and 100 MiB of free space fit in, and writing it takes seconds.
const QUOTA: u64 = 192 * MIB;
const FILE: u64 = 180 * MIB;
const LIVE: u64 = 8 * MIB;
/// What grows: 2.5 MiB a second, which fill the quota within four of the days of [`hastened`].
const GROWTH_BYTES: usize = 256 << 10;
const GROWTH_EVERY: Duration = Duration::from_millis(100);
/// Some scrapes and evaluations: whatever fires without a cause does so within it.
const A_WHILE: Duration = Duration::from_secs(6);

/// In mode observe: it only looks. The only one with a file.
const WATCHED: &str = "watched";
/// Its run fails.
const BROKEN: &str = "broken";
/// Its runs succeed.
const ENFORCED: &str = "enforced";
const CONFIGURATION: &str = "watched.yaml";
/// Nothing listens there.
const TARGET: &str = "chat";

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_fires_from_its_real_cause() {
    let mut story = Story::begin().await;
    story.nothing_fires_while_all_is_well().await;
    story.data_grows().await;
    story.space_is_free_and_nobody_takes_it().await;
    story.a_member_freezes_in_a_run().await;
    story.a_defragmentation_takes_long().await;
    story.the_quota_is_passed().await;
    story.there_is_nothing_left_to_gain().await;
    story.the_data_differs().await;
    story.members_disagree().await;
    story.the_configuration_changes().await;
    story.a_token_is_wrong().await;
    story.a_run_cannot_be_reported().await;
    story.defragd_goes_down().await;
    story.the_cluster_goes_down().await;
    assert_eq!(story.shown, alertnames(), "alerts that have fired, and alerts");
}

struct Story {
    rig: Rig,
    watched: Defragd,
    broken: Defragd,
    enforced: Defragd,
    prometheus: Prometheus,
    /// The alerts that have fired.
    shown: BTreeSet<String>,
    /// Of `broken`, and of what takes its place.
    _port: Port,
}

impl Story {
    async fn begin() -> Self {
        let rig = Rig::with(EtcdSpec::new(faults::newest()).quota_bytes(QUOTA)).await;
        configure(&rig, &[WATCHED]);
        let file = format!("--config={}", rig.path(CONFIGURATION).display());
        let watched = start(&rig, WATCHED, &[file.as_str()]).await;
        let mut port = Port::reserve().unwrap();
        let at = format!("--web.listen-address={}", port.address());
        // Longer than it takes on a busy machine to freeze the next member, and until Prometheus has noticed that.
        let stops = ["--breaker-failures=1", "--recovery-timeout=30s", "--pause-between-members=30s", at.as_str()];
        port.release();
        let broken = serve(&rig, BROKEN, &[&["--mode=enforce"], &stops[..]].concat()).await;
        let always = [
            "--verify=hash",
            "--on-open-snapshot=ignore",
            "--rule=dbSize > 0",
            "--pause-between-members=1s",
            "--cooldown=0s",
            "--max-runs-per-day=100",
        ];
        let enforced = serve(&rig, ENFORCED, &[&["--mode=enforce"], &always[..]].concat()).await;
        let rules = rig.path("defragd.rules.yml");
        std::fs::write(&rules, hastened(&shipped())).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: defragd\n    static_configs: [{{targets: ['{}', '{}', '{}']}}]\n",
            rules.display(),
            watched.target(),
            broken.target(),
            enforced.target(),
        );
        let prometheus = Prometheus::start(&rig.tools, &config, &rig.path("prometheus.log")).await.unwrap();
        Self { rig, watched, broken, enforced, prometheus, shown: BTreeSet::new(), _port: port }
    }

    async fn nothing_fires_while_all_is_well(&self) {
        until("every defragd to be scraped", MINUTE, || async {
            let up = self.prometheus.query("up{job=\"defragd\"} == 1").await?;
            anyhow::ensure!(up.len() == 3, "{up:?}");
            Ok(())
        })
        .await
        .unwrap();
        sleep(A_WHILE).await;
        let mut firing = self.firing().await;
        // A scrape has half a second: on a busy machine one may fail, which is what `for:` is for.
        firing.retain(|alert| alert.state == "firing");
        assert!(firing.is_empty(), "without a cause: {firing:?}");
    }

    async fn data_grows(&mut self) {
        let mut client = self.rig.cluster.client(0).await.unwrap();
        let writes = tokio::spawn(async move {
            // It catches up: the rate must not depend on how long a write takes.
            let mut pace = interval(GROWTH_EVERY);
            for number in 0.. {
                pace.tick().await;
                client.put(format!("growth/{number}"), vec![b'x'; GROWTH_BYTES], None).await.unwrap();
            }
        });
        self.fires("EtcdQuotaExhaustionPredicted", WATCHED).await;
        writes.abort();
        let all = etcd_client::DeleteOptions::new().with_prefix();
        self.rig.cluster.client(1).await.unwrap().delete("growth/", Some(all)).await.unwrap();
    }

    async fn space_is_free_and_nobody_takes_it(&mut self) {
        let now =
            ["EtcdFragmentationHigh", "EtcdQuotaUsageHigh", "EtcdQuotaUsageCritical", "DefragdRemediationStalled"];
        self.is_silent(&now, WATCHED).await;
        fragment(&self.rig.cluster, FILE, LIVE).await.unwrap();
        for name in now {
            self.fires(name, WATCHED).await;
        }
    }

    async fn a_member_freezes_in_a_run(&mut self) {
        self.is_silent(&["DefragdRunStuck", "DefragdRunFailed", "DefragdBreakerOpen"], BROKEN).await;
        self.is_silent(&["DefragdMemberUnreachable"], WATCHED).await;
        let leader = self.rig.cluster.leader().await.unwrap();
        let watch = DefragWatch::start(&self.rig.cluster).unwrap();
        let mut snapshots = Vec::new();
        for index in 0..3 {
            snapshots.push(OpenSnapshot::of(&self.rig.cluster, index).await.unwrap());
        }
        ask(&self.broken, BROKEN).await;
        self.fires("DefragdSnapshotOpen", BROKEN).await;
        drop(snapshots);
        let first = first_defragmented(&watch, &self.broken).await;
        let frozen = (0..3).find(|index| ![first, leader].contains(index)).unwrap();
        self.rig.cluster.pause(frozen).unwrap();
        self.fires("DefragdRunStuck", BROKEN).await;
        let run = self.broken.json("/api/v1/runs/1").await.unwrap();
        assert!(run["outcome"].is_null(), "it had ended: {run}");
        let member = self.rig.cluster.member(frozen).name().to_owned();
        self.fires_with("DefragdMemberUnreachable", &[("etcd_cluster", WATCHED), ("member", &member)]).await;
        let run = ended_run(&self.broken, 1).await;
        assert_eq!(run["outcome"], "failed", "{run}");
        self.fires("DefragdRunFailed", BROKEN).await;
        self.fires("DefragdBreakerOpen", BROKEN).await;
        self.rig.cluster.resume(frozen).unwrap();
        self.rig.cluster.ready().await.unwrap();
        until("the member to be well for everybody", MINUTE, || async {
            let down = self.prometheus.query("defragd_member_up == 0").await?;
            anyhow::ensure!(down.is_empty(), "{down:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn a_defragmentation_takes_long(&mut self) {
        until("the alerts of the frozen member to resolve", MINUTE, || async {
            let firing = self.prometheus.alerts().await?;
            anyhow::ensure!(!firing.iter().any(|alert| is(alert, "DefragdMemberUnreachable", ENFORCED)));
            Ok(())
        })
        .await
        .unwrap();
        self.is_silent(&["DefragdDefragOverdue", "DefragdNoGain"], ENFORCED).await;
        let held = faults::hold(&self.rig).await;
        ask(&self.enforced, ENFORCED).await;
        let busy = faults::defragmenting(&self.rig.cluster).await;
        let overdue = self.fires("DefragdDefragOverdue", ENFORCED).await;
        let member = self.rig.cluster.member(busy).name();
        assert_eq!(overdue.labels["member"], member);
        // It does not answer, and that is as it should be.
        sleep(A_WHILE).await;
        let labels = format!("etcd_cluster=\"{ENFORCED}\",member=\"{member}\"");
        let silence = format!("sum_over_time((defragd_member_up{{{labels}}} == bool 0)[{}s:1s])", A_WHILE.as_secs());
        until("the member to be silent for a while", MINUTE, || async {
            let silent = self.prometheus.query(&silence).await?;
            anyhow::ensure!(silent.first().is_some_and(|silent| silent.value >= 4.0), "{silent:?}");
            Ok(())
        })
        .await
        .unwrap();
        let alerts = format!("ALERTS{{alertname=\"DefragdMemberUnreachable\",{labels}}}");
        let alerts = self.prometheus.query(&alerts).await.unwrap();
        assert!(alerts.is_empty(), "the alarm is false, it is being defragmented: {alerts:?}");
        drop(held);
        let run = ended_run(&self.enforced, 1).await;
        assert_eq!(run["outcome"], "succeeded", "{run}");
    }

    async fn the_quota_is_passed(&mut self) {
        self.is_silent(&["EtcdFragmentationReturns"], ENFORCED).await;
        self.is_silent(&["EtcdNoSpace"], WATCHED).await;
        exhaust_quota(&self.rig.cluster, LIVE).await.unwrap();
        self.fires("EtcdNoSpace", WATCHED).await;
        self.fires("EtcdFragmentationReturns", ENFORCED).await;
        assert!(!self.is_firing("EtcdFragmentationReturns", WATCHED).await, "that one has never defragmented");
    }

    /// A run frees what it can; the one after it finds files that get no smaller. (The first one may have met such a
    /// file, too: that of the member which the broken run had been at.)
    async fn there_is_nothing_left_to_gain(&mut self) {
        for id in 2..=3 {
            let path = format!("/api/v1/clusters/{ENFORCED}/run");
            let answer = self.enforced.post(&path, r#"{"by": "ann"}"#, Some(TOKEN)).await.unwrap();
            assert!(answer.status < 300, "{answer:?}");
            let run = ended_run(&self.enforced, id).await;
            assert_eq!(run["outcome"], "succeeded", "{run}");
        }
        self.fires("DefragdNoGain", ENFORCED).await;
    }

    async fn the_data_differs(&mut self) {
        self.is_silent(&["EtcdHashMismatch"], ENFORCED).await;
        change_one_underneath(&self.rig).await;
        let path = format!("/api/v1/clusters/{ENFORCED}/run");
        let answer = self.enforced.post(&path, r#"{"by": "ann"}"#, Some(TOKEN)).await.unwrap();
        assert!(answer.status < 300, "{answer:?}");
        let run = ended_run(&self.enforced, 4).await;
        assert_eq!(run["outcome"], "mismatched", "{run}");
        self.fires("EtcdHashMismatch", ENFORCED).await;
    }

    async fn members_disagree(&mut self) {
        self.is_silent(&["EtcdCorrupt"], WATCHED).await;
        self.rig.cluster.arm_corrupt(1).await.unwrap();
        self.fires("EtcdCorrupt", WATCHED).await;
    }

    async fn the_configuration_changes(&mut self) {
        self.is_silent(&["DefragdClusterDuplicate"], WATCHED).await;
        configure(&self.rig, &[WATCHED, "watched-too"]);
        let answer = self.watched.post("/-/reload", "", Some(TOKEN)).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        self.fires("DefragdClusterDuplicate", WATCHED).await;
        let alerts = self.prometheus.alerts().await.unwrap();
        assert!(!alerts.iter().any(|alert| alert.labels["alertname"] == "DefragdReloadFailed"), "{alerts:?}");
        std::fs::write(self.rig.path(CONFIGURATION), "clusters: [{name: wat").unwrap();
        let answer = self.watched.post("/-/reload", "", Some(TOKEN)).await.unwrap();
        assert!(answer.status >= 400, "{answer:?}");
        let instance = self.watched.target().to_owned();
        let failed = self.fires_with("DefragdReloadFailed", &[("instance", &instance)]).await;
        assert_eq!(failed.labels["what"], "its configuration");
    }

    async fn a_token_is_wrong(&mut self) {
        let alerts = self.prometheus.alerts().await.unwrap();
        assert!(!alerts.iter().any(|alert| alert.labels["alertname"] == "DefragdWebhookRejected"), "{alerts:?}");
        let alert = notification("firing", &[("alertname", "X"), ("etcd_cluster", WATCHED)], "f9");
        let answer = self.watched.post_alerts(&alert, Some("another-token-than-that")).await.unwrap();
        assert_eq!(answer.status, 401);
        let rejected = self.fires_with("DefragdWebhookRejected", &[("code", "401")]).await;
        assert!(rejected.annotations["summary"].contains("HTTP 401"), "{rejected:?}");
    }

    async fn a_run_cannot_be_reported(&mut self) {
        let alerts = self.prometheus.alerts().await.unwrap();
        assert!(!alerts.iter().any(|alert| alert.labels["alertname"] == "DefragdNotificationFailed"), "{alerts:?}");
        ask(&self.watched, WATCHED).await;
        self.fires_with("DefragdNotificationFailed", &[("target", TARGET)]).await;
    }

    async fn defragd_goes_down(&mut self) {
        let gone = self.broken.target().to_owned();
        self.broken.kill().await.unwrap();
        self.fires_with("DefragdDown", &[("instance", &gone)]).await;
        for name in ["DefragdShardsDisagree", "DefragdShardMissing"] {
            assert!(!self.firing().await.iter().any(|alert| alert.labels["alertname"] == name), "{name}");
        }
        self.is_silent(&["DefragdClusterDuplicate"], ENFORCED).await;
        let at = format!("--web.listen-address={gone}");
        let _shard = serve(&self.rig, "shard", &["--shard=1", "--total-shards=3", &at]).await;
        for name in ["DefragdShardsDisagree", "DefragdShardMissing"] {
            self.fires_with(name, &[("severity", "warning")]).await;
        }
        // Now those of all processes are compared.
        self.fires("DefragdClusterDuplicate", ENFORCED).await;
    }

    async fn the_cluster_goes_down(&mut self) {
        self.is_silent(&["DefragdClusterUnreachable"], WATCHED).await;
        for index in 0..3 {
            self.rig.cluster.kill(index).await.unwrap();
        }
        self.fires("DefragdClusterUnreachable", WATCHED).await;
    }

    async fn firing(&self) -> Vec<FiringAlert> {
        self.prometheus.alerts().await.unwrap()
    }

    async fn is_firing(&self, name: &str, cluster: &str) -> bool {
        self.firing().await.iter().any(|alert| is(alert, name, cluster) && alert.state == "firing")
    }

    /// So that alerts that fire afterwards have a new cause. Those that do not look back may still fire for the load of
    /// the step before.
    async fn is_silent(&self, names: &[&str], cluster: &str) {
        for name in names {
            until("the alert to be silent", MINUTE, || async {
                anyhow::ensure!(!self.is_firing(name, cluster).await, "{name} fires without its cause");
                Ok(())
            })
            .await
            .unwrap();
        }
    }

    async fn fires(&mut self, name: &str, cluster: &str) -> FiringAlert {
        self.fires_with(name, &[("etcd_cluster", cluster)]).await
    }

    async fn fires_with(&mut self, name: &str, labels: &[(&str, &str)]) -> FiringAlert {
        let begin = std::time::Instant::now();
        let found = until(&format!("{name} to fire with {labels:?}"), MINUTE, || async {
            let mut alerts = self.prometheus.alerts().await?;
            let here = alerts.iter().position(|alert| {
                alert.labels["alertname"] == name
                    && alert.state == "firing"
                    && labels.iter().all(|(label, value)| alert.labels.get(*label).is_some_and(|own| own == value))
            });
            let index = here.ok_or_else(|| anyhow::anyhow!("it is not among {alerts:?}"))?;
            Ok(alerts.swap_remove(index))
        })
        .await
        .unwrap();
        eprintln!("{name} after {:.1} s: {}", begin.elapsed().as_secs_f64(), found.annotations["summary"]);
        self.shown.insert(name.to_owned());
        found
    }
}

fn is(alert: &FiringAlert, name: &str, cluster: &str) -> bool {
    alert.labels["alertname"] == name && alert.labels.get("etcd_cluster").is_some_and(|own| own == cluster)
}

/// A file in which the rig's cluster has each of these names, in mode observe. Each goes through a member of its own:
/// entries that share an endpoint are refused.
fn configure(rig: &Rig, names: &[&str]) {
    let pki = rig.cluster.pki().unwrap();
    let tls = json!({"ca_file": pki.ca(), "cert_file": pki.client().cert, "key_file": pki.client().key});
    let entry = |(name, endpoint)| json!({"name": name, "endpoints": [endpoint], "tls": tls});
    let entries: Vec<_> = names.iter().zip(rig.cluster.endpoints()).map(entry).collect();
    let target = json!({"name": TARGET, "webhook": {"url": "http://127.0.0.1:1/"}});
    std::fs::write(rig.path(CONFIGURATION), json!({"clusters": entries, "notify": [target]}).to_string()).unwrap();
}

/// A defragd that knows the rig's cluster under this name, by flags.
async fn serve(rig: &Rig, name: &str, extra: &[&str]) -> Defragd {
    let flags = [rig.cluster.connection_flags(), vec![format!("--cluster-name={name}")]].concat();
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(extra.iter().copied()).collect();
    start(rig, name, &flags).await
}

/// A defragd with a journal of its own.
async fn start(rig: &Rig, name: &str, flags: &[&str]) -> Defragd {
    let token = rig.path("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let mut args: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    args.push(format!("--data-dir={}", rig.path(name).display()));
    args.push(format!("--web.bearer-token-file={}", token.display()));
    Defragd::start(crate::rig::binary(), &args, &rig.path(&format!("{name}.log"))).await.unwrap()
}

/// What Alertmanager would send.
async fn ask(defragd: &Defragd, cluster: &str) {
    let alert = notification("firing", &[("alertname", "EtcdFragmentationHigh"), ("etcd_cluster", cluster)], "f1");
    let answer = defragd.post_alerts(&alert, Some(TOKEN)).await.unwrap();
    assert_eq!(answer.status, 202, "{answer:?}");
}

fn shipped() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/defragd.rules.yml")).unwrap()
}

fn alertnames() -> BTreeSet<String> {
    let names = shipped();
    let names = names.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Every `for:` is 2 seconds, the looks back of the two rules about runs 4 seconds, and in the forecast an hour is
/// a second: its windows, the samples that they must have, the interval between those, and the days to full.
fn hastened(rules: &str) -> String {
    let mut text = rules.to_owned();
    for (from, to) in [
        ("_timestamp_seconds) < 900", "_timestamp_seconds) < 4"),
        ("_timestamp_seconds) < 3600", "_timestamp_seconds) < 4"),
        ("interval: 5m", "interval: 1s"),
        ("max[6h]", "max[6s]"),
        ("max[1d]", "max[24s]"),
        ("max[7d]", "max[168s]"),
        (">= 0.75 * 72\n", ">= 0.75 * 6\n"),
        (">= 0.75 * 288\n", ">= 0.75 * 24\n"),
        (">= 0.75 * 2016\n", ">= 0.75 * 168\n"),
        (" / 86400 < 4", " / 24 < 4"),
    ] {
        assert!(text.contains(from), "a rule is written otherwise now: {from}");
        text = text.replace(from, to);
    }
    let short = |line: &str| match line.trim_start().strip_prefix("for:") {
        Some(_) => format!("{}for: 2s\n", &line[..line.len() - line.trim_start().len()]),
        None => format!("{line}\n"),
    };
    text.lines().map(short).collect()
}
