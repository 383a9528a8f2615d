//! The demo's steps, each bounded in time.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use testkit::{DefragWatch, EtcdCluster, MemberStatus, Tools, Writer, fragment, until};

use crate::args::Args;
use crate::console::{Console, mib, seconds};
use crate::report::{self, Check};
use crate::stack::{CLUSTER, Stack};

/// The shipped alert that this is about.
const ALERT: &str = "EtcdFragmentationHigh";
/// Scrape, evaluation and the shortened `for:` take about ten seconds.
const ALERT_WITHIN: Duration = Duration::from_secs(60);
/// Alertmanager's shortened group wait is a second.
const POST_WITHIN: Duration = Duration::from_secs(60);
/// Three members, each some seconds of copying and the pause after it.
const RUN_WITHIN: Duration = Duration::from_secs(240);
/// A fifth of the file stays in use: far more to reclaim than the alert needs.
const LIVE_SHARE: u64 = 5;
/// The outcomes other than succeeded.
const BAD_OUTCOMES: [&str; 7] =
    ["nothing_to_do", "observed", "refused", "failed", "mismatched", "interrupted", "stopped"];

/// The result, with everything still running.
pub(crate) struct StoryResult {
    /// Whether every check holds.
    pub(crate) holds: bool,
    stack: Stack,
    writer: Writer,
}

/// Plays it, up to the checks.
pub(crate) async fn tell(tools: &Tools, args: &Args, console: &Console, logs: &Path) -> Result<StoryResult> {
    let stack = Stack::start(tools, args, console, logs).await?;
    let names: Vec<String> = stack.etcd.members().iter().map(|member| member.name().to_owned()).collect();
    let mut writer = Writer::start(&stack.etcd).await?;
    console.say("a client keeps writing keys, to every member in turn");

    let before = fill(args, console, &stack.etcd).await?;
    let watch = DefragWatch::start(&stack.etcd)?;
    wait_for_post(console, &stack).await?;
    wait_for_run(console, &stack, &names, &watch).await?;
    let seen = watch.stop().await;
    let after = stack.etcd.statuses().await?;

    let mut checks = report::checks(&names, &before, &after, &seen);
    let report = if args.exit { writer.stop().await? } else { writer.report() };
    checks.push(read_back(&writer, &stack.etcd).await);

    println!("\n{}", report::table(&names, &before, &after));
    println!("  by the servers' own logs: {}", report::named(&names, &seen.order()));
    println!("  {}\n", report::writer(&report));
    for check in &checks {
        println!("  {} {}", if check.holds { "ok    " } else { "FAILED" }, check.text);
    }
    println!();
    let failed = checks.iter().filter(|check| !check.holds).count();
    console.say(&if failed == 0 { "every check passed".to_owned() } else { format!("{failed} checks FAILED") });

    Ok(StoryResult { holds: failed == 0, stack, writer })
}

/// Makes the databases large and mostly free space.
pub(crate) async fn fill(args: &Args, console: &Console, etcd: &EtcdCluster) -> Result<Vec<MemberStatus>> {
    let target = args.size_mb * 1024 * 1024;
    console.say(&format!("overwriting keys until each database has {}, then compacting", mib(target)));
    let filled = fragment(etcd, target, target / LIVE_SHARE).await.context("failed to fragment the databases")?;
    let before = etcd.statuses().await?;
    for (member, status) in etcd.members().iter().zip(&before) {
        let role = if status.is_leader { "leader" } else { "follower" };
        console.say(&format!(
            "  {} ({role}): {}, of that {} in use",
            member.name(),
            mib(status.size),
            mib(status.in_use)
        ));
    }
    console.say(&format!("that took {}", seconds(filled.took)));
    Ok(before)
}

/// Prometheus fires, Alertmanager posts: each according to its own API.
async fn wait_for_post(console: &Console, stack: &Stack) -> Result<()> {
    let firing = stack.prometheus.wait_firing(ALERT, ALERT_WITHIN).await?;
    let alert = firing.iter().find(|alert| alert.labels.get("etcd_cluster").is_some_and(|name| name == CLUSTER));
    let alert = alert.with_context(|| format!("{ALERT} fires, but not for the cluster {CLUSTER}"))?;
    console.say(&format!("Prometheus fires {ALERT}: {}", alert.annotations.get("summary").map_or("", String::as_str)));

    until("Alertmanager to post to defragd", POST_WITHIN, || async {
        let page = stack.alertmanager.metrics().await?;
        let webhook = [("integration", "webhook")];
        let sent = page.require("alertmanager_notifications_total", &webhook)?;
        let failed: f64 = page
            .samples("alertmanager_notifications_failed_total")
            .filter(|(labels, _)| labels.get("integration").is_some_and(|name| name == "webhook"))
            .map(|(_, value)| value)
            .sum();
        ensure!(sent > failed, "{sent} notifications were sent, {failed} failed");
        Ok(())
    })
    .await?;
    console.say("Alertmanager has posted it to defragd, which accepted it");
    Ok(())
}

/// Reports each member when its own log shows the end of its defrag; returns when defragd reports the end of the run.
async fn wait_for_run(console: &Console, stack: &Stack, names: &[String], watch: &DefragWatch) -> Result<()> {
    let mut reported = 0;
    let end = tokio::time::Instant::now() + RUN_WITHIN;
    loop {
        stack.defragd.ensure_running()?;
        // Asked first, so that everything the run did is in the timeline below.
        let over = run_succeeded(stack).await?;
        for defrag in watch.timeline().finished().iter().skip(reported) {
            reported += 1;
            let size =
                stack.etcd.status(defrag.member).await.map_or_else(|_| "not known yet".to_owned(), |s| mib(s.size));
            console.say(&format!(
                "  {} was defragmented in {}, its size is {size}",
                names[defrag.member],
                seconds(defrag.took)
            ));
        }
        if over {
            console.say("defragd's run has succeeded");
            return Ok(());
        }
        ensure!(
            tokio::time::Instant::now() < end,
            "no run has succeeded within {RUN_WITHIN:?}; {reported} members were defragmented"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn run_succeeded(stack: &Stack) -> Result<bool> {
    let page = stack.defragd.metrics().await?;
    let ended = |outcome: &str| {
        let of_this = |(labels, _): &(std::collections::BTreeMap<String, String>, f64)| {
            labels.get("outcome").is_some_and(|o| o == outcome)
        };
        page.samples("defragd_runs_total").filter(of_this).map(|(_, count)| count).sum::<f64>() > 0.0
    };
    if let Some(bad) = BAD_OUTCOMES.into_iter().find(|&outcome| ended(outcome)) {
        bail!("defragd's run ended as {bad}");
    }
    Ok(ended("succeeded"))
}

async fn read_back(writer: &Writer, etcd: &EtcdCluster) -> Check {
    match writer.verify(etcd).await {
        Ok(keys) => Check { text: format!("all {keys} acknowledged keys read back"), holds: true },
        Err(error) => Check { text: format!("acknowledged keys read back: {error:#}"), holds: false },
    }
}

impl StoryResult {
    /// Leaves everything running until it is interrupted.
    pub(crate) async fn stay(&mut self, console: &Console) -> Result<()> {
        console.say(&format!(
            "everything keeps running: Prometheus {}/alerts, Alertmanager {}, defragd {} - Ctrl-C ends it",
            self.stack.prometheus.url(),
            self.stack.alertmanager.url(),
            self.stack.defragd.url()
        ));
        crate::interruption().await?;
        console.say("ending");
        let report = self.writer.stop().await?;
        console.say(&report::writer(&report));
        let keys = self.writer.verify(&self.stack.etcd).await?;
        console.say(&format!("all {keys} acknowledged keys read back"));
        Ok(())
    }

    /// Stops defragd with SIGTERM and everything else at once.
    pub(crate) async fn end(self) -> Result<()> {
        self.stack.defragd.terminate(Duration::from_secs(30)).await.context("failed to end defragd")?;
        Ok(())
    }
}
