//! The page during a real run on real etcd, approved from the page.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use testkit::{Browser, EtcdCluster, EtcdSpec, EtcdVersion, HeldDefrags, Home, Tools, fragment, until};

use crate::rig::{MINUTE, assert_no_complaints, browser, home, inspect};

const MIB: u64 = 1 << 20;

async fn live(browser: &Browser) -> String {
    browser.text_of("#live").await.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_approved_on_the_page_and_followed_live_to_its_end() {
    let Some(browser) = browser().await else { return };
    let tools = Tools::find().unwrap();
    let spec = EtcdSpec::new(EtcdVersion::V3_5).patient();
    let cluster = EtcdCluster::start(&tools, &spec).await.unwrap();
    fragment(&cluster, 40 * MIB, 8 * MIB).await.unwrap();
    let home = home();
    let mut flags = cluster.connection_flags();
    let own = ["--cluster-name=demo", "--mode=approve", "--min-reclaimable=4MiB", "--pause-between-members=4s"];
    flags.extend(own.map(str::to_owned));
    // That is what holds the defragmentations below.
    flags.push("--on-open-snapshot=ignore".to_owned());
    flags.extend(home.token_flags());
    let defragd = home.serve(&flags).await.unwrap();

    browser.open(defragd.url()).await.unwrap();
    browser.wait_for("No alert is requesting a run", MINUTE).await.unwrap();
    browser.wait_for("3.5", MINUTE).await.unwrap();
    inspect(&browser, "fleet-idle").await;
    // A mark that loading the page again would lose.
    browser.script("window.stayed = true").await.unwrap();

    let alert = json!({"status": "firing",
        "labels": {"etcd_cluster": "demo", "alertname": "EtcdFragmentationHigh", "severity": "warning"},
        "annotations": {"summary": "much of <b>demo</b> is free"}, "startsAt": "2026-11-29T05:31:00Z", "fingerprint": "f"});
    let accepted = defragd.post_alerts(&json!({"version": "4", "alerts": [alert]}), Some(Home::TOKEN)).await.unwrap();
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    browser
        .wait_for("EtcdFragmentationHigh firing since 2026-11-29 05:31 UTC. Waiting for approval", MINUTE)
        .await
        .unwrap();
    browser.wait_for("Review and approve run 1", MINUTE).await.unwrap();
    assert_eq!(browser.script("return window.stayed").await.unwrap(), true, "the page followed by itself");

    browser.click("#runs a[href='/runs/1']").await.unwrap();
    browser.wait_for("What the run will do", MINUTE).await.unwrap();
    let text = browser.text().await.unwrap();
    for part in ["much of <b>demo</b> is free", "3 members to defragment", "is the leader", "File", "MiB"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("Approve run 1"), "a stranger is offered nothing");
    log_in(&browser).await;
    browser.open(&format!("{}/runs/1", defragd.url())).await.unwrap();
    inspect(&browser, "run-waits").await;
    // What is being filled in stays while the page is updated.
    browser.click("#reject summary").await.unwrap();
    browser.enter("#reject-reason", "half a sen").await.unwrap();
    browser.script("document.getElementById('link').textContent = ''").await.unwrap();
    until("an update of the page", MINUTE, || async {
        let link = browser.script("return document.getElementById('link').textContent").await?;
        ensure!(link == "Live", "{link}");
        Ok(())
    })
    .await
    .unwrap();
    let reason =
        "const form = document.getElementById('reject'); return form.open && form.querySelector('[name=reason]').value";
    assert_eq!(browser.script(reason).await.unwrap(), "half a sen");
    let held = HeldDefrags::start(&cluster).await.unwrap();
    browser.enter("#approve-by", "Ann <b>").await.unwrap();
    browser.click("form[action='/runs/1/approve'] button").await.unwrap();
    browser.wait_for("The run is approved.", MINUTE).await.unwrap();
    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(run["approved"]["by"], "Ann <b>");

    follow(&browser, defragd.url(), (&cluster, &held)).await;

    let run = defragd.json("/api/v1/runs/1").await.unwrap();
    assert_eq!(run["outcome"], "succeeded", "{run}");
    browser.open(&format!("{}/runs/1", defragd.url())).await.unwrap();
    browser.wait_for("ended: succeeded", MINUTE).await.unwrap();
    let text = browser.text().await.unwrap();
    assert!(text.contains("approved by Ann <b>") && text.contains(" % fragmented; "), "{text}");
    inspect(&browser, "run-ended").await;
    assert_no_complaints(&browser).await;
}

async fn log_in(browser: &Browser) {
    browser.click("a[href='/login']").await.unwrap();
    inspect(browser, "login").await;
    browser.enter("#token", "wrong-wrong-wrong-wrong").await.unwrap();
    browser.click("main button").await.unwrap();
    browser.wait_for("This is not the admin token.", MINUTE).await.unwrap();
    browser.enter("#token", Home::TOKEN).await.unwrap();
    browser.click("main button").await.unwrap();
    browser.wait_for("This is not the admin token.", MINUTE).await.unwrap();
    inspect(browser, "login-wrong").await;
    assert!(browser.cookies().await.unwrap().as_array().unwrap().is_empty(), "nobody is logged in");
    browser.enter("#token", Home::ADMIN).await.unwrap();
    browser.click("main button").await.unwrap();
    browser.wait_for("Sign out", MINUTE).await.unwrap();
    let cookies = browser.cookies().await.unwrap();
    assert_eq!((&cookies[0]["httpOnly"], &cookies[0]["sameSite"]), (&json!(true), &json!("Strict")), "{cookies}");
    assert!(!cookies.to_string().contains(Home::ADMIN), "the token itself is in no cookie");
}

/// The page of the fleet, from the run's beginning to its end, without loading it again. Each defragmentation is held
/// until the page has shown the one before: a browser on a busy machine takes longer for a look than a run for all
/// members.
async fn follow(browser: &Browser, url: &str, (cluster, held): (&EtcdCluster, &HeldDefrags)) {
    browser.open(url).await.unwrap();
    browser.script("window.stayed = true").await.unwrap();
    // A person reads with the keyboard meanwhile: the focus must stay where it is.
    browser.script("document.querySelector('#runs a').focus()").await.unwrap();
    let (mut busy, mut members, mut pictured, mut released) = (false, 0, false, 0);
    for _ in 0..1_200 {
        let text = live(browser).await;
        // What is under way; a member of a small cluster may be done before the page shows it.
        busy |= !text.is_empty();
        let now = text.matches("succeeded").count();
        if now > members {
            members = now;
            assert!(text.contains("MiB") && text.contains("After"), "before and after: {text}");
        }
        if members == 1 && !pictured {
            pictured = true;
            assert_eq!(browser.script("return document.activeElement.getAttribute('href')").await.unwrap(), "/runs/1");
            inspect(browser, "fleet-live").await;
        }
        if busy && text.is_empty() {
            break;
        }
        for index in 0..cluster.len() {
            if members >= released && cluster.defrag_inflight(index).await.unwrap_or(false) {
                held.release(index);
                released = members + 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(busy && members >= 2, "members were seen as they ended: {members}");
    until("the end to be on the page", MINUTE, || async {
        let runs = browser.text_of("#runs").await?;
        ensure!(runs.contains("succeeded"), "{runs}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(browser.script("return window.stayed").await.unwrap(), true, "it was never loaded again");
    inspect(browser, "fleet-after").await;
}
