//! What the page shows of a run in progress.

use std::{sync::Arc, time::Duration};

use super::Site;
use crate::{
    adapters::http::AccessPolicy,
    app::{
        cluster::{stop_channel, tests::key},
        fake_site::site,
    },
    core::policy::Mode,
};

/// The page of the fleet, once it contains this. Its time is virtual.
async fn shows(site: &Site, words: &str) -> String {
    for _ in 0..600 {
        let page = site.get("/", "").await.body;
        if page.contains(words) {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("{words:?} is not in {}", site.get("/", "").await.body);
}

#[tokio::test(start_paused = true)]
async fn while_a_run_waits_after_a_member_the_page_shows_that_member_and_what_ends_the_wait() {
    let (app, router) = site(&["a"], Mode::Enforce, AccessPolicy::tokens(None, None));
    let site = Site { app, router };
    let cluster = Arc::clone(&site.app.fleet().all()[0]);
    let etcd = cluster.target.etcd();
    cluster.request(key("f")).await.expect("accepted");
    let follow = async {
        let settles = "Now: etcd-3 is defragmented, checking that the cluster stays healthy";
        shows(&site, settles).await;
        etcd.hang(2);
        let page = shows(&site, "Now: waiting: member etcd-2 does not answer").await;
        for words in [
            " is waiting</b>",
            " 0 of 3 members done",
            "</span>settling</span>",
            "The run fails unless the cluster is healthy again within 5m (recovery_timeout).",
            " is defragmented next, once the wait is over",
        ] {
            assert!(page.contains(words), "no {words:?} in {page}");
        }
        shows(&site, "What to do: Bring the member back").await;
        etcd.recover(2);
        shows(&site, settles).await;
        shows(&site, " 1 of 3 members done").await;
    };
    let (_stop, stopped) = stop_channel();
    tokio::select! {
        () = cluster.work(stopped) => {}
        () = follow => {}
    }
}
