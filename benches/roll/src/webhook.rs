//! From the webhook to the first Defragment.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::json;
use testkit::{Defragd, until};
use tokio::time::Instant;

use crate::{dataset::Dataset, figures::Spread};

/// A run observes the cluster before it plans and again before it sends; see `core::run`.
const LOOKS: u32 = 2;

/// Measures it some times, and says what the calls before the first Defragment take by themselves.
pub(crate) async fn latencies(data: &Dataset, defragd: &Path, times: u32) -> Result<String> {
    let (mut to_first, mut looks) = (Vec::new(), Vec::new());
    for n in 0..times {
        data.restore().await?;
        looks.push(preflight(data).await?.as_secs_f64() * 1e3);
        to_first.push(once(data, defragd, n).await?.as_secs_f64() * 1e3);
    }
    let spread = |values: Vec<f64>| Spread::of(values.into_iter()).context("nothing was measured");
    let (to_first, look) = (spread(to_first)?, spread(looks)?);
    let beyond = to_first.median - f64::from(LOOKS) * look.median;
    let met = if beyond < 100.0 { "met" } else { "MISSED" };
    Ok(format!(
        "### From the webhook to the first Defragment\n\n\
         {:.0} ms ({:.0}–{:.0}, {times} times), by the member's own log. The calls of one look at all members take {:.0} ms \
         ({:.0}–{:.0}) by themselves, and there are {LOOKS} before the first Defragment: {beyond:.0} ms beyond them (goal: \
         below 100 ms): {met}.\n",
        to_first.median, to_first.min, to_first.max, look.median, look.min, look.max
    ))
}

/// The calls of one look, all members at once, over connections that are there.
async fn preflight(data: &Dataset) -> Result<Duration> {
    let mut clients = Vec::new();
    for index in 0..data.cluster.len() {
        let mut client = data.cluster.client(index).await?;
        client.status().await?;
        clients.push(client);
    }
    let begin = Instant::now();
    let asked = clients.iter_mut().enumerate().map(|(index, client)| async move {
        client.member_list().await?;
        client.status().await?;
        client.get("bench", None).await?;
        data.cluster.metrics(index).await.map(drop)
    });
    join_all(asked).await.into_iter().collect::<Result<()>>()?;
    Ok(begin.elapsed())
}

async fn once(data: &Dataset, defragd: &Path, n: u32) -> Result<Duration> {
    let dir = tempfile::tempdir()?;
    let mut args = data.cluster.connection_flags();
    args.extend(["--cluster-name=bench", "--mode=enforce", "--pause-between-members=0s"].map(str::to_owned));
    args.push(format!("--data-dir={}", dir.path().display()));
    let server = Defragd::start(defragd, &args, &dir.path().join("log")).await?;
    // Connections are there, as they are in one that is scraped.
    server.metrics().await?;
    let already = starts(data)?.len();
    let sent = jiff::Timestamp::now();
    let alert = json!({
        "version": "4", "groupKey": "bench", "status": "firing", "receiver": "defragd", "groupLabels": {},
        "commonLabels": {}, "commonAnnotations": {}, "externalURL": "", "truncatedAlerts": 0,
        "alerts": [{
            "status": "firing", "labels": {"alertname": "EtcdFragmentationHigh", "etcd_cluster": "bench"},
            "annotations": {}, "startsAt": sent.to_string(), "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": "", "fingerprint": format!("{n:016x}"),
        }],
    });
    let answer = server.post_alerts(&alert, None).await?;
    ensure!(answer.status == 202, "the webhook was answered with {}: {}", answer.status, answer.body);
    let first = until("the first Defragment", Duration::from_secs(60), || async {
        let starts = starts(data)?;
        ensure!(starts.len() > already, "none yet");
        starts.into_iter().filter(|at| *at >= sent).min().context("none of this run")
    })
    .await?;
    until("the end of the run", Duration::from_secs(120), || async {
        let runs = server.json("/api/v1/runs").await?;
        ensure!(runs.to_string().contains("\"succeeded\""), "not yet: {runs}");
        Ok(())
    })
    .await?;
    server.terminate(Duration::from_secs(30)).await?;
    Ok(Duration::try_from(first.duration_since(sent)).unwrap_or_default())
}

/// When the members began Defragment requests, by their logs.
fn starts(data: &Dataset) -> Result<Vec<jiff::Timestamp>> {
    let mut starts = Vec::new();
    for member in data.cluster.members() {
        for line in member.log()?.lines().filter(|line| line.contains("\"starting defragment\"")) {
            let line: serde_json::Value = serde_json::from_str(line)?;
            starts.push(line["ts"].as_str().context("a line of the log without a time")?.parse()?);
        }
    }
    Ok(starts)
}
