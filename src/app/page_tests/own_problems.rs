//! What the page shows while defragd itself is not well.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::Site;
use crate::{
    adapters::http::AccessPolicy,
    app::{
        cluster::tests::{cluster_in, shared},
        fake::FakeEtcd,
        fake_site::router,
        service::App,
    },
    config::Settings,
    core::policy::Policy,
    ports::service::Service,
};

const OWN: &str = "Yes: defragd itself needs attention";

#[tokio::test(start_paused = true)]
async fn a_journal_that_cannot_be_written_is_on_the_page_and_in_the_plan() {
    let site = super::open();
    let journal = &site.app.fleet().all()[0].shared.journal;
    for is_broken in [false, true, false] {
        if is_broken {
            journal.break_down();
        } else {
            journal.recover();
        }
        // Longer than the last check counts.
        sleep(Duration::from_secs(10)).await;
        let page = site.get("/", "").await.body;
        assert_eq!(page.contains(OWN), is_broken, "{page}");
        assert_eq!(page.contains("Cannot write the journal: disk full. No run starts"), is_broken, "{page}");
        let holds = site.app.plan("a", false).await.expect("a plan").holds;
        assert_eq!(holds.iter().any(|hold| hold.reason.label() == "journal_failed"), is_broken, "{holds:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_a_reload_rejected_is_on_the_page_until_one_is_applied() {
    let world = shared(1);
    let is_good = Arc::new(AtomicBool::new(false));
    let read = Arc::clone(&is_good);
    let reader = Arc::new(move || {
        let text =
            if read.load(Ordering::SeqCst) { "clusters: [{name: a, endpoints: ['http://127.0.0.1:1']}]" } else { "?" };
        Settings::from_text(text).map_err(|error| error.to_string())
    });
    let app = App::new(vec![cluster_in(&world, "a", Policy::default())], world);
    let connect = Arc::new(|_: &_| Ok(FakeEtcd::new(3)));
    let app = Arc::new(app.configured(serde_json::Value::Null, Vec::new(), Some(reader), connect));
    let router = router(&app, AccessPolicy::tokens(None, None));
    let site = Site { app, router };
    let shown = async || {
        let (status, configuration) = (site.get("/", "").await.body, site.get("/configuration", "").await.body);
        let rejected = "The configuration was rejected at 2026-11-23 00:00 UTC, and the previous one stays in effect";
        assert_eq!(status.contains(rejected), status.contains(OWN), "{status}");
        assert!(!status.contains("check-config"), "the advice is on the other page: {status}");
        (status.contains(OWN), configuration.contains("was rejected: what follows is the previous one"))
    };
    assert_eq!(shown().await, (false, false));
    assert!(site.app.reload().await.is_err());
    assert_eq!(shown().await, (true, true));
    is_good.store(true, Ordering::SeqCst);
    site.app.reload().await.expect("good");
    assert_eq!(shown().await, (false, false));
}
