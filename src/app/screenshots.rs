//! `make screenshots`: every state of the page in a real browser, over fakes at the ports, for people to look at. The
//! tests of the page are `page_tests.rs` and `tests/browser`.

use std::{path::Path, sync::Arc, time::Duration};

use bytesize::ByteSize;
use jiff::SignedDuration;
use strum::{IntoStaticStr, VariantArray};
use testkit::{Browser, Tools, until};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::{
    cluster::{
        stop_channel,
        tests::{cluster_in, shared},
    },
    fake::FakeJournal,
    fake_site::{FakeApp, router},
    service::App,
};
use crate::{
    adapters::http::AccessPolicy,
    core::{
        cluster::{MemberId, Status},
        fixture,
        history::{AlertKey, Entry, Intent, Labels, MemberEnd, MemberResult, Outcome, Request, RunId, Sizes, Trigger},
        policy::{Mode, Need, Policy},
        reason::Reason,
        sizes::SizeHistory,
    },
    ports::{
        journal::Journal,
        overview::Overview,
        service::{Command, Service},
    },
};

/// Those that `make screenshots` puts into docs/images, compressed.
const IN_DOCS: [&str; 5] = ["running", "approval-run", "failed-cluster", "fragmented-dark", "fleet-30"];
const MINUTE: Duration = Duration::from_mins(1);

/// What a cluster is shown doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
enum Scene {
    Idle,
    Fragmented,
    Running,
    Approval,
    Paused,
    Failed,
    MemberDown,
    #[strum(serialize = "nospace")]
    NoSpace,
    Unreachable,
}

impl Scene {
    fn policy(self) -> Policy {
        let mode = match self {
            Self::Approval => Mode::Approve,
            Self::Fragmented | Self::NoSpace => Mode::Observe,
            _ => Mode::Enforce,
        };
        Policy { mode, pause_between_members: Duration::from_secs(1), ..Policy::default() }
    }

    /// Of member `id`: its file and the part in use.
    fn sizes(self, id: u64) -> (ByteSize, ByteSize) {
        let (size, in_use) = match self {
            Self::Idle | Self::Unreachable => (410, 380),
            Self::NoSpace => (2_049, 190),
            Self::MemberDown => (620, 480),
            _ => (1_500, 34),
        };
        (ByteSize::mib(size + id * 7), ByteSize::mib(in_use + id))
    }

    fn status(self, id: u64, status: &mut Status) {
        (status.db_size, status.db_size_in_use) = self.sizes(id);
        status.quota = Some(ByteSize::gib(2));
    }
}

/// A served fleet. Dropping it ends everything.
struct Fleet {
    app: Arc<FakeApp>,
    url: String,
    _stop: watch::Sender<Option<Reason>>,
    _tasks: JoinSet<()>,
}

async fn fleet(scenes: &[(String, Scene)]) -> Fleet {
    let world = shared(8);
    let clusters = scenes.iter().map(|(name, scene)| cluster_in(&world, name, scene.policy())).collect();
    let app = Arc::new(App::new(clusters, world));
    let (stop, stopped) = stop_channel();
    let mut tasks = JoinSet::new();
    for (cluster, (_, scene)) in app.fleet().all().into_iter().zip(scenes) {
        cluster.target.etcd().report(|(id, status)| scene.status(*id, status));
        *cluster.observations.sizes.lock() = Arc::new(past(*scene, app.now()));
        let stopped = stopped.clone();
        tasks.spawn(async move { cluster.work(stopped).await });
    }
    for (name, scene) in scenes {
        set(&app, name, *scene).await;
    }
    let router = router(&app, AccessPolicy::tokens(None, None));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    Fleet { app, url, _stop: stop, _tasks: tasks }
}

/// Some days of growth, and a defragmentation of clusters that are not fragmented now.
fn past(scene: Scene, now: jiff::Timestamp) -> SizeHistory {
    let mut history = SizeHistory::default();
    let mut facts = fixture::cluster(3);
    let steps = 5 * 24 * 2_u64;
    for step in 0..steps {
        for id in 1..=3_u64 {
            let (size, in_use) = scene.sizes(id);
            let grown = 40 + 60 * step / steps;
            let status = fixture::status_mut(&mut facts, usize::try_from(id).expect("small") - 1);
            let was_larger = scene == Scene::Idle && step < steps * 3 / 4;
            let file = if was_larger { ByteSize(size.0 * 3 * grown / 100) } else { ByteSize(size.0 * grown / 100) };
            let daily = 80 + (step % 48) / 2;
            (status.db_size, status.db_size_in_use) = (file, ByteSize((in_use.0 * daily / 100).min(file.0)));
        }
        let ago = SignedDuration::from_mins(30 * i64::try_from(steps - step).expect("small"));
        history.record(now - ago, &facts);
    }
    history
}

async fn set(app: &FakeApp, name: &str, scene: Scene) {
    let all = app.fleet().all();
    let cluster = all.iter().find(|cluster| cluster.name() == name).expect("configured");
    let etcd = cluster.target.etcd();
    let command = |command: Command| app.command(name, "anna".to_owned(), command, false);
    match scene {
        Scene::Idle | Scene::Fragmented => {}
        Scene::Running => {
            etcd.take(Duration::from_millis(400));
            command(Command::Run { members: Vec::new() }).await.expect("taken");
            until("the first member", MINUTE, || async {
                anyhow::ensure!(!etcd.order().is_empty());
                Ok(())
            })
            .await
            .expect("it begins");
            etcd.take(Duration::from_hours(1));
            until("the second member", MINUTE, || async {
                anyhow::ensure!(etcd.order().len() > 1);
                Ok(())
            })
            .await
            .expect("it continues");
        }
        Scene::Approval => drop(cluster.request(vec![alert(name)]).await),
        Scene::Paused => {
            let reason = "upgrade of rack 7, CHG-20417".to_owned();
            let lasts = Some(Duration::from_hours(4));
            command(Command::Pause { reason, lasts }).await.expect("paused");
        }
        Scene::Failed => fail(&cluster.shared.journal, name).await,
        Scene::MemberDown => etcd.hang(3),
        Scene::NoSpace => etcd.arm_no_space(),
        Scene::Unreachable => (1..=3).for_each(|id| etcd.hang(id)),
    }
    if scene == Scene::Failed {
        cluster.ledger().await.expect("read");
    }
}

fn alert(cluster: &str) -> AlertKey {
    let labels = [("alertname", "EtcdFragmentationHigh"), ("severity", "warning"), ("etcd_cluster", cluster)];
    let labels: Labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let summary = format!("98 % of the database of {cluster} is free space");
    AlertKey::new("f".to_owned(), "2026-11-22T23:31:00Z").described(&labels, &summary)
}

/// A run whose second member did not come back.
async fn fail(journal: &FakeJournal, name: &str) {
    let request = Request::new(name, Trigger::Alert);
    let run = journal.accept(request).await.expect("accepted");
    let intent = |id: u64| Intent {
        member_id: MemberId(id),
        member: format!("etcd-{id}"),
        is_leader: id == 1,
        need: Need::Fragmented,
        before: Sizes { db_size: ByteSize::mib(1_714), db_size_in_use: ByteSize::mib(36) },
        expected: Some(Duration::from_secs(4)),
        non_blocking: false,
    };
    let after = Sizes { db_size: ByteSize::mib(37), db_size_in_use: ByteSize::mib(36) };
    let took = Duration::from_millis(3_600);
    let reason = Reason::ClusterUnreachable {
        detail: "etcd-2 does not answer at https://10.31.7.12:2379 since its defragmentation: connection refused; \
                 the other endpoints are not asked while its state is unknown"
            .to_owned(),
    };
    let end = |end| Entry::Result(MemberResult { intent: intent(2), end });
    for entry in [
        Entry::Started { mode: Mode::Enforce, term: None, compares: false },
        Entry::Intent(intent(3)),
        Entry::Result(MemberResult {
            intent: intent(3),
            end: MemberEnd::Defragmented { after, took, unavailable: None },
        }),
        Entry::Intent(intent(2)),
        end(MemberEnd::Failed { reason: reason.clone(), after: None, took: None }),
        Entry::Finished(Outcome::Failed { reason }),
    ] {
        journal.append(run, entry).await.expect("written");
    }
}

struct Camera {
    browser: Browser,
}

impl Camera {
    /// A page at this width, after two views: the first one observes.
    async fn take(&self, url: &str, name: &str, scheme: &str, width: u32) {
        self.browser.scheme(scheme).await.expect("a scheme");
        self.browser.width(width).await.expect("a width");
        self.browser.open(url).await.expect("opened");
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        self.browser.picture(&dir.join(format!("{name}.png"))).await.expect("a picture");
        if IN_DOCS.contains(&name) {
            self.browser.picture(&dir.join(format!("{name}.webp"))).await.expect("a picture");
        }
        assert_eq!(self.browser.overflow().await.expect("measured"), 0, "{name} is wider than its window");
    }
}

/// Until every cluster has been observed, and members that hang were given up.
async fn observed(fleet: &Fleet) {
    let all: Vec<_> = fleet.app.clusters().into_iter().map(|cluster| cluster.name).collect();
    until("all clusters to be observed", MINUTE, || async {
        fleet.app.refresh(&all).await;
        anyhow::ensure!(fleet.app.views().iter().all(|view| view.observation.is_some()));
        Ok(())
    })
    .await
    .expect("observed");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures for people: make screenshots"]
async fn every_state_in_a_browser() {
    let Some(browser) = Browser::start(&Tools::find().expect("tools"), 1280).await.expect("started") else { return };
    let camera = Camera { browser };
    for &scene in Scene::VARIANTS {
        let name: &str = scene.into();
        let fleet = fleet(&[("prod-eu-1".to_owned(), scene)]).await;
        observed(&fleet).await;
        let cluster = format!("{}/clusters/prod-eu-1", fleet.url);
        camera.take(&fleet.url, name, "light", 1280).await;
        camera.take(&cluster, &format!("{name}-cluster"), "light", 1280).await;
        camera.take(&cluster, &format!("{name}-dark"), "dark", 1280).await;
        camera.take(&fleet.url, &format!("{name}-phone"), "light", 390).await;
        let runs = fleet.app.runs(1).await.expect("read");
        if let Some(RunId(run)) = runs.first().map(|run| run.id) {
            camera.take(&format!("{}/runs/{run}", fleet.url), &format!("{name}-run"), "light", 1280).await;
        }
    }
    for clusters in [5, 30, 300] {
        // Mostly idle, as fleets are; every scene is there.
        let scene = |index: usize| match index {
            ..9 if clusters > 9 => Scene::VARIANTS[index],
            ..5 => Scene::VARIANTS[index],
            index if index % 11 == 0 => Scene::Fragmented,
            _ => Scene::Idle,
        };
        let names = ["prod-eu", "prod-us", "staging", "ci"];
        let scenes: Vec<_> =
            (0..clusters).map(|index| (format!("{}-{:03}", names[index % 4], index + 1), scene(index))).collect();
        let fleet = fleet(&scenes).await;
        observed(&fleet).await;
        for (scheme, width, kind) in [("light", 1280, ""), ("dark", 1280, "-dark"), ("light", 390, "-phone")] {
            camera.take(&fleet.url, &format!("fleet-{clusters}{kind}"), scheme, width).await;
        }
    }
}
