//! The real router over an application of fakes.

use std::sync::Arc;

use axum::Router;

use crate::{
    adapters::http::{AccessPolicy, Options, router},
    app::{
        cluster::tests::{cluster_in, shared},
        fake::{FakeEtcd, FakeJournal},
        service::App,
    },
    core::policy::{Mode, Policy},
};

pub(super) type FakeApp = App<FakeEtcd, FakeJournal>;

/// With clusters of these names in this mode.
pub(super) fn site(names: &[&str], mode: Mode, access: AccessPolicy) -> (Arc<FakeApp>, Router) {
    let world = shared(1);
    let policy = Policy { mode, ..Policy::default() };
    let clusters = names.iter().map(|name| cluster_in(&world, name, policy.clone())).collect();
    let app = Arc::new(App::new(clusters, world));
    let router = router(Arc::clone(&app), Options::plain(access));
    (app, router)
}
