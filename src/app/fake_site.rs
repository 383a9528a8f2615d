//! The real router over an application of fakes.

use std::sync::Arc;

use axum::Router;

use crate::{
    adapters::http::{self, AccessPolicy, Options, Web},
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
    let router = router(&app, access);
    (app, router)
}

/// Over plain HTTP, without prefixes.
pub(super) fn router(app: &Arc<FakeApp>, access: AccessPolicy) -> Router {
    http::router(Arc::clone(app), access, Arc::new(Web::plain()), Options::default())
}
