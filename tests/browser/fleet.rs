//! A fleet that does not fit on one page. A thousand clusters, which take a minute to start, are in `src/app/page_tests.rs`.

use std::fmt::Write;

use testkit::{Browser, Pki, until};

use crate::rig::{MINUTE, assert_no_complaints, browser, home, inspect};

const CLUSTERS: usize = 150;
/// More than this is slow to read on a phone, whatever the fleet.
const MAX_PAGE_BYTES: usize = 120_000;

async fn count(browser: &Browser, selector: &str) -> i64 {
    browser.script(&format!("return document.querySelectorAll({selector:?}).length")).await.unwrap().as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_fleet_is_read_in_pages_with_trouble_first() {
    let Some(browser) = browser().await else { return };
    let home = home();
    // Authorities of our own: those of the system take their time to be read for each cluster.
    let pki = Pki::create(&home.path("pki")).unwrap();
    let tls = format!("tls: {{ca_file: {:?}}}", pki.ca());
    let mut config = "clusters:\n".to_owned();
    for number in 0..CLUSTERS {
        let address = format!("127.1.{}.{}", number / 250, number % 250 + 1);
        writeln!(config, "  - {{name: cluster-{number:04}, endpoints: [\"https://{address}:1\"], {tls}}}").unwrap();
    }
    home.write("config.yaml", config).unwrap();
    let defragd = home.serve(&[home.flag("--config", "config.yaml")]).await.unwrap();

    browser.open(defragd.url()).await.unwrap();
    browser.wait_for("150 of 150 clusters, page 1 of 3", MINUTE).await.unwrap();
    assert_eq!(count(&browser, "#fleet tbody tr").await, 50);
    let page = until("the page", MINUTE, || defragd.get("/")).await.unwrap().body;
    assert!(page.len() < MAX_PAGE_BYTES, "{} bytes", page.len());
    browser.wait_for("unreachable", MINUTE).await.unwrap();
    inspect(&browser, "fleet-of-150").await;

    browser.click("a[rel=next]").await.unwrap();
    browser.wait_for("page 2 of 3", MINUTE).await.unwrap();
    browser.enter("input[name=q]", "0042").await.unwrap();
    browser.click(".filter button").await.unwrap();
    browser.wait_for("1 of 150 clusters", MINUTE).await.unwrap();
    assert_eq!(count(&browser, "#fleet article").await, 1, "one cluster is shown with its members");
    browser.wait_for("no endpoint returns the member list", MINUTE).await.unwrap();
    browser.open(&format!("{}/?state=healthy&page=99", defragd.url())).await.unwrap();
    browser.wait_for("No clusters match.", MINUTE).await.unwrap();
    assert_no_complaints(&browser).await;
}
