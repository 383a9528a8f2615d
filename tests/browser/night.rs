//! A night: an alert fires, the page and `defragd plan` say what would be done, it is approved, a member dies in the middle,
//! it is paused, repaired and resumed, and done. Every sentence on the way is compared with what the servers say.

use std::process::Output;

use anyhow::ensure;
use serde_json::{Value, json};
use testkit::{Browser, Defragd, EtcdCluster, EtcdSpec, EtcdVersion, Home, Tools, fragment, until};

use crate::rig::{MINUTE, assert_no_complaints, binary, browser, home, inspect};

const MIB: u64 = 1 << 20;

struct Night {
    browser: Browser,
    etcd: EtcdCluster,
    home: Home,
    defragd: Defragd,
}

impl Night {
    async fn begin(browser: Browser) -> Self {
        let tools = Tools::find().unwrap();
        let spec = EtcdSpec::new(EtcdVersion::V3_5).patient();
        let etcd = EtcdCluster::start(&tools, &spec).await.unwrap();
        fragment(&etcd, 40 * MIB, 8 * MIB).await.unwrap();
        let home = home();
        let mut flags = etcd.connection_flags();
        // The pause: in it a member must die before the next one's turn comes.
        let own = ["--cluster-name=demo", "--mode=approve", "--min-reclaimable=4MiB", "--pause-between-members=20s"];
        flags.extend(own.map(str::to_owned));
        flags.push("--recovery-timeout=30s".to_owned());
        flags.extend(home.token_flags());
        let defragd = home.serve(&flags).await.unwrap();
        Self { browser, etcd, home, defragd }
    }

    /// What an engineer types.
    async fn types(&self, args: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(binary());
        command.args(args).env("DEFRAGD_SERVER", self.defragd.url());
        command.env("DEFRAGD_TOKEN_FILE", self.home.path("admin")).kill_on_drop(true).output().await.unwrap()
    }

    async fn alert(&self, status: &str) {
        let alert = json!({"status": status, "fingerprint": "f", "startsAt": "2026-11-29T05:31:00Z",
            "labels": {"etcd_cluster": "demo", "alertname": "EtcdFragmentationHigh"},
            "annotations": {"summary": "much of demo is free"}});
        let webhook = json!({"version": "4", "alerts": [alert]});
        let answer = self.defragd.post_alerts(&webhook, Some(Home::TOKEN)).await.unwrap();
        assert!(answer.status < 300, "{}", answer.body);
    }

    async fn run(&self, number: u32) -> Value {
        self.defragd.json(&format!("/api/v1/runs/{number}")).await.unwrap()
    }

    async fn ended(&self, number: u32) -> Value {
        until("the run to end", MINUTE * 2, || async {
            let run = self.defragd.json(&format!("/api/v1/runs/{number}")).await?;
            ensure!(run["outcome"].is_string(), "{run}");
            Ok(run)
        })
        .await
        .unwrap()
    }

    async fn shows(&self, text: &str) {
        self.browser.wait_for(text, MINUTE * 2).await.unwrap();
    }

    /// The member that is done already, by its own metrics.
    async fn done(&self) -> Vec<usize> {
        let mut done = Vec::new();
        for index in 0..self.etcd.len() {
            if self.etcd.defrags_done(index).await.unwrap_or(0) > 0 {
                done.push(index);
            }
        }
        done
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_night_from_the_alert_to_the_end() {
    let Some(browser) = browser().await else { return };
    let night = Night::begin(browser).await;
    let leader = night.etcd.leader().await.unwrap();
    let name = |index: usize| night.etcd.member(index).name().to_owned();
    night.browser.open(night.defragd.url()).await.unwrap();
    night.shows("No alert is requesting a run").await;
    night.shows("fragmented").await;

    night.alert("firing").await;
    night.shows("EtcdFragmentationHigh firing since 2026-11-29 05:31 UTC. Waiting for approval").await;
    night.shows("Review and approve run 1").await;

    // The plan is held, and says by what; the leader is last, as the servers see it.
    let plan = night.types(&["plan"]).await;
    let text = said(&plan);
    assert_eq!(plan.status.code(), Some(3), "{text}");
    assert!(text.contains("3 members would be defragmented") && text.contains("approval"), "{text}");
    let last = text.lines().find(|line| line.starts_with("|     3 ")).unwrap();
    assert!(last.contains(&name(leader)) && last.contains("leader"), "{text}");

    // It asks on a terminal only.
    let unasked = night.types(&["approve", "1", "--by=ann"]).await;
    assert_eq!(unasked.status.code(), Some(1), "{}", said(&unasked));
    let approved = night.types(&["approve", "1", "--by=ann", "--yes"]).await;
    let text = said(&approved);
    assert_eq!(approved.status.code(), Some(0), "{text}");
    for part in
        ["EtcdFragmentationHigh", "much of demo is free", "3 members would be defragmented", "Run 1 is approved"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    night.shows("Now: ").await;

    // Once a member is done, another one dies.
    until("a member to be done", MINUTE, || async {
        let run = night.defragd.json("/api/v1/runs/1").await?;
        ensure!(run["members"][0]["member"].is_string(), "{run}");
        Ok(())
    })
    .await
    .unwrap();
    let victim = (0..3).find(|index| *index != leader && !done_in(&night, *index)).unwrap_or(leader);
    night.etcd.kill(victim).await.unwrap();
    let down = format!("member {} is down", name(victim));
    night.shows(&down).await;
    let failed = night.ended(1).await;
    assert_ne!(failed["outcome"], "succeeded", "{failed}");
    night.shows("needs attention").await;
    inspect(&night.browser, "night-member-down").await;
    let plan = night.types(&["plan"]).await;
    assert_eq!(plan.status.code(), Some(3), "{}", said(&plan));
    assert!(said(&plan).contains(&name(victim)), "{}", said(&plan));

    // The engineer keeps everything off while the member is repaired.
    let paused = night.types(&["pause", "--cluster=demo", "--reason=a new disk", "--by=ann"]).await;
    assert_eq!(paused.status.code(), Some(0), "{}", said(&paused));
    night.shows("a new disk").await;
    night.etcd.restart(victim).await.unwrap();
    until("the member to be up on the page", MINUTE, || async {
        let text = night.browser.text().await?;
        ensure!(!text.contains(&down), "{text}");
        Ok(())
    })
    .await
    .unwrap();
    let done = night.done().await;
    let resumed = night.types(&["resume", "--cluster=demo", "--reason=disk replaced", "--by=ann"]).await;
    assert_eq!(resumed.status.code(), Some(0), "{}", said(&resumed));

    // What failed needs another approval; the alert still asks for it.
    night.shows("Review and approve run 2").await;
    let approved = night.types(&["approve", "2", "--by=ann", "--yes"]).await;
    assert_eq!(approved.status.code(), Some(0), "{}", said(&approved));
    let run = night.ended(2).await;
    assert_eq!(run["outcome"], "succeeded", "{run}");
    let again: Vec<_> = run["members"].as_array().unwrap().iter().map(|member| member["member"].clone()).collect();
    assert!(done.iter().all(|index| !again.contains(&json!(name(*index)))), "none twice: {done:?} {again:?}");
    for status in night.etcd.statuses().await.unwrap() {
        assert!(status.size * 10 < status.in_use * 13, "{} bytes for {} in use", status.size, status.in_use);
    }

    // The alert fires until it is reported as resolved.
    night.shows("EtcdFragmentationHigh firing since 2026-11-29 05:31 UTC").await;
    night.alert("resolved").await;
    night.shows("No alert is requesting a run").await;
    night.shows("healthy").await;
    inspect(&night.browser, "night-over").await;
    assert_no_complaints(&night.browser).await;
    assert_eq!(night.run(1).await["approved"]["by"], "ann");
}

/// Whether the member was defragmented, by its log.
fn done_in(night: &Night, index: usize) -> bool {
    !night.etcd.member(index).defrag_spans().unwrap().is_empty()
}
