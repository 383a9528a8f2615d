//! What `defragd serve` logs: the same in both formats, and enough to see what it does.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use testkit::{Defragd, EtcdVersion, until};

use crate::rig::{MINUTE, Rig, TOKEN, binary, ended_run, firing};

/// The keys of a logfmt line, in order, with their values as they are written.
fn logfmt(line: &str) -> Vec<(String, String)> {
    let (mut pairs, mut rest) = (Vec::new(), line.trim());
    while let Some((key, after)) = rest.split_once('=') {
        let end = if after.starts_with('"') {
            let closing = after.char_indices().skip(1).scan(false, |escaped, (at, c)| {
                let closes = c == '"' && !*escaped;
                *escaped = c == '\\' && !*escaped;
                Some((at, closes))
            });
            closing.into_iter().find(|(_, closes)| *closes).map_or(after.len(), |(at, _)| at + 1)
        } else {
            after.find(' ').unwrap_or(after.len())
        };
        pairs.push((key.to_owned(), after[..end].trim_matches('"').to_owned()));
        rest = after[end..].trim_start();
    }
    pairs
}

/// By message: the keys of each line that has it.
fn keys(lines: impl Iterator<Item = Vec<(String, String)>>) -> BTreeMap<String, BTreeSet<Vec<String>>> {
    let mut found: BTreeMap<String, BTreeSet<Vec<String>>> = BTreeMap::new();
    for pairs in lines {
        let message = pairs.iter().find(|(key, _)| key == "message").unwrap().1.clone();
        let mut keys: Vec<_> = pairs.into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys[..2], ["ts", "level"], "{message}");
        keys.sort_unstable();
        found.entry(message).or_default().insert(keys);
    }
    found
}

/// The log of a run that an alert requested, from the start to the end of the process.
async fn log_of_a_run(format: &str) -> String {
    let rig = Rig::fragmented(EtcdVersion::V3_5).await;
    let defragd = rig.serve(&["--mode=enforce", &format!("--log.format={format}")]).await;
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    ended_run(&defragd, 1).await;
    // The journal has the end a moment before the cluster takes the next request: until then the same alert would be a
    // duplicate, with other keys than the accepted one that waits for the cooldown.
    until("the cluster to have no run", MINUTE, || async {
        let active = defragd.json("/api/v1/clusters").await?["clusters"][0]["active_run"].clone();
        anyhow::ensure!(active.is_null(), "run {active} is under way");
        Ok(())
    })
    .await
    .unwrap();
    defragd.post_alerts(&firing(), Some(TOKEN)).await.unwrap();
    defragd.terminate(MINUTE).await.unwrap();
    defragd.log().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_formats_have_the_same_keys_and_the_first_line_says_what_runs() {
    let (as_logfmt, as_json) = tokio::join!(log_of_a_run("logfmt"), log_of_a_run("json"));
    let json = |line: &str| -> Vec<(String, String)> {
        // In order, which a map would not keep.
        let value: BTreeMap<String, Value> = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let mut pairs: Vec<_> = value
            .into_iter()
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect();
        pairs.sort_by_key(|(key, _)| line.find(&format!("\"{key}\":")));
        pairs
    };
    let (from_logfmt, from_json) = (keys(as_logfmt.lines().map(logfmt)), keys(as_json.lines().map(json)));
    for message in
        ["starting defragd", "listening", "alert received", "planned", "defragmenting", "defragmented", "run ended"]
    {
        assert!(from_logfmt.contains_key(message), "{message}:\n{as_logfmt}");
        assert_eq!(from_logfmt.get(message), from_json.get(message), "{message}:\n{as_logfmt}\n{as_json}");
    }
    for (log, level) in [(&as_logfmt, "level=info"), (&as_json, "\"level\":\"info\"")] {
        assert!(log.lines().next().unwrap().contains(level), "{log}");
    }
    assert!(!as_logfmt.contains("code=none") && !as_json.contains("\"code\":\"none\""), "{as_logfmt}");

    let first: BTreeMap<_, _> = logfmt(as_logfmt.lines().next().unwrap()).into_iter().collect();
    assert_eq!(first["message"], "starting defragd");
    assert_eq!((&*first["clusters"], &*first["mode"]), ("demo", "enforce"));
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert!(first.contains_key("revision") && first["data_dir"].ends_with("/journal"), "{first:?}");
    let alert: BTreeMap<_, _> = as_logfmt
        .lines()
        .map(logfmt)
        .find(|pairs| pairs.iter().any(|(_, value)| value == "alert received"))
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!((&*alert["cluster"], &*alert["run"], &*alert["decision"]), ("demo", "1", "accepted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_cluster_is_in_the_log_without_a_scrape_and_a_reload_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    // Nothing listens there.
    let cluster = |name: &str, port: u16, policy: &str| {
        format!("  - {{name: {name}, endpoints: ['http://127.0.0.1:{port}'], policy: {{{policy}}}}}\n")
    };
    let write = |clusters: &[String]| std::fs::write(&file, format!("clusters:\n{}", clusters.concat())).unwrap();
    write(&[cluster("gone", 1, ""), cluster("b", 2, "")]);
    let args = [format!("--config={}", file.display()), format!("--data-dir={}", dir.path().join("journal").display())];
    let defragd = Defragd::start(binary(), &args, &dir.path().join("defragd.log")).await.unwrap();
    let logged = |text: &'static str| {
        let defragd = &defragd;
        until(text, MINUTE, move || async move {
            let log = defragd.log()?;
            let line = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            line.ok_or_else(|| anyhow::anyhow!("not in {log}"))
        })
    };
    let line = logged("the cluster is unreachable").await.unwrap();
    assert!(line.contains("endpoints=http://127.0.0.1:") && line.contains("refused"), "{line}");
    // Scrapes observe both clusters again, and do not log it again.
    for _ in 0..3 {
        defragd.metrics().await.unwrap();
    }
    let log = defragd.log().unwrap();
    assert_eq!(log.matches("the cluster is unreachable").count(), 2, "once for each cluster: {log}");
    assert!(log.lines().next().unwrap().contains(&format!("config={}", file.display())), "{log}");

    write(&[cluster("b", 2, "mode: approve, cooldown: 1h"), cluster("new", 3, "")]);
    defragd.signal_hup().unwrap();
    let line = logged("configuration reloaded").await.unwrap();
    assert!(line.contains("added=new removed=gone") && line.contains("b: policy.cooldown, policy.mode"), "{line}");
}
