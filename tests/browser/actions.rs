//! Pause and resume on the page, on an unreachable cluster; with and without scripts.

use anyhow::ensure;
use serde_json::Value;
use testkit::{Browser, Defragd, Home, until};

use crate::rig::{MINUTE, assert_no_complaints, browser, home, inspect};

async fn cluster(defragd: &Defragd) -> Value {
    defragd.json("/api/v1/clusters").await.unwrap()["clusters"][0].clone()
}

/// Opens the page of the cluster, and waits for its forms: one from before the journal was read gets them later.
async fn open_with_forms(browser: &Browser, defragd: &Defragd) {
    browser.open(&format!("{}/clusters/demo", defragd.url())).await.unwrap();
    until("a page with forms", MINUTE, || async {
        let has_forms = browser.script("return document.querySelector('#pause') !== null").await?;
        let shown = browser.text().await?;
        ensure!(has_forms == true, "it says {shown}");
        Ok(())
    })
    .await
    .unwrap();
}

/// On loopback without a token there is no sign-in.
async fn pause_and_resume(browser: &Browser, defragd: &Defragd, name: &str) {
    open_with_forms(browser, defragd).await;
    browser.wait_for("no endpoint returns the member list", MINUTE).await.unwrap();
    inspect(browser, &format!("{name}-away")).await;
    browser.click("#pause summary").await.unwrap();
    browser.enter("#pause-reason", "   ").await.unwrap();
    browser.enter("#pause-by", "ann").await.unwrap();
    browser.click("form[action$='/pause'] button").await.unwrap();
    browser.wait_for("Enter a reason for the pause", MINUTE).await.unwrap();
    inspect(browser, &format!("{name}-no-reason")).await;
    assert_eq!(cluster(defragd).await["paused"], Value::Null);
    browser.enter("#pause-reason", "upgrade of <i>rack</i> 7").await.unwrap();
    browser.enter("#pause-for", "4 hours").await.unwrap();
    browser.click("form[action$='/pause'] button").await.unwrap();
    browser.wait_for("The cluster is paused.", MINUTE).await.unwrap();
    let paused = cluster(defragd).await["paused"].clone();
    assert_eq!((paused["by"].as_str(), paused["reason"].as_str()), (Some("ann"), Some("upgrade of <i>rack</i> 7")));
    assert!(paused["until"].is_string(), "{paused}");
    browser.wait_for("upgrade of <i>rack</i> 7", MINUTE).await.unwrap();
    inspect(browser, &format!("{name}-paused")).await;
    browser.click("#resume summary").await.unwrap();
    browser.wait_for("Recorded as ann", MINUTE).await.unwrap();
    browser.click("form[action$='/resume'] button").await.unwrap();
    browser.wait_for("The cluster is resumed.", MINUTE).await.unwrap();
    assert_eq!(cluster(defragd).await["paused"], Value::Null);
    let log = defragd.log().unwrap();
    assert!(
        log.lines().any(|line| line.contains("resumed") && line.contains("by=ann")),
        "the name was asked once: {log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_is_shown_so_and_is_paused_and_resumed() {
    let Some(browser) = browser().await else { return };
    let home = home();
    let defragd = home.serve(&Home::nowhere()).await.unwrap();
    pause_and_resume(&browser, &defragd, "cluster").await;
    // The very same form once more: reloading the page does not repeat the action.
    browser.open(&format!("{}/nowhere/at/all", defragd.url())).await.unwrap();
    browser.open(&format!("{}/clusters/nobody", defragd.url())).await.unwrap();
    browser.wait_for("Cluster not found", MINUTE).await.unwrap();
    inspect(&browser, "no-cluster").await;
    browser.open(&format!("{}/runs/77", defragd.url())).await.unwrap();
    browser.wait_for("Run not found", MINUTE).await.unwrap();
    assert_no_complaints(&browser).await;

    // The page says that its content is old once no server answers.
    browser.open(defragd.url()).await.unwrap();
    browser.wait_for("Yes: demo is unreachable", MINUTE).await.unwrap();
    defragd.kill().await.unwrap();
    browser.wait_for("Not connected: this page is out of date", MINUTE).await.unwrap();
    inspect(&browser, "not-connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_scripts_everything_can_be_read_and_ordered() {
    let Some(browser) = browser().await else { return };
    let home = home();
    let mut flags = Home::nowhere();
    // Behind a prefix, for a change: every link and every form must have it.
    flags.push("--web.route-prefix=/ops/defragd".to_owned());
    let defragd = home.serve(&flags).await.unwrap();
    browser.scripts(false).await.unwrap();
    let base = format!("{}/ops/defragd", defragd.url());
    // Nothing updates the page, and the first one may say that the journal is still being read.
    until("the page of a cluster whose journal is read", MINUTE, || async {
        browser.open(&format!("{base}/")).await?;
        let shown = browser.text().await?;
        ensure!(shown.contains("No alert is requesting a run"), "it says {shown}");
        Ok(())
    })
    .await
    .unwrap();
    browser.wait_for("this page is not updated automatically", MINUTE).await.unwrap();
    browser.click("#fleet h3 a").await.unwrap();
    assert_eq!(browser.address().await.unwrap(), format!("{base}/clusters/demo"));
    browser.click("#pause summary").await.unwrap();
    browser.enter("#pause-reason", "no scripts").await.unwrap();
    browser.enter("#pause-by", "ann").await.unwrap();
    browser.click("form[action$='/pause'] button").await.unwrap();
    browser.wait_for("The cluster is paused.", MINUTE).await.unwrap();
    let summary = defragd.json("/ops/defragd/api/v1/clusters").await.unwrap();
    assert_eq!(summary["clusters"][0]["paused"]["reason"], "no scripts");
}
