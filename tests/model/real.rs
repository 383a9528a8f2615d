//! The lab over real etcd, through defragd's own adapter.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use defragd::{
    adapters::etcd::{EtcdCluster as Adapter, Sources},
    core::cluster::Member,
};
use testkit::{
    EtcdCluster, EtcdSpec, EtcdVersion, HeldDefrags, Port, Tools, Transport, exhaust_quota, fragment, until,
};
use tokio::{
    process::{Child, Command},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    lab::{Lab, Transcript},
    scenarios::Scenario,
};

const MIB: u64 = 1 << 20;
/// Small, so that a scenario that uses it up is soon there; others stay below it.
const SMALL_QUOTA: u64 = 48 * MIB;

/// Plays a scenario on three members of this line. Also gives the version that they say they are.
pub async fn play(line: EtcdVersion, scenario: Scenario) -> (String, Vec<String>) {
    let tools = Tools::find().unwrap();
    let mut spec = EtcdSpec::new(line).transport(Transport::Plain).patient();
    if scenario.wants_small_quota() {
        spec = spec.quota_bytes(SMALL_QUOTA);
    }
    let cluster = Arc::new(EtcdCluster::start(&tools, &spec).await.unwrap());
    let version = cluster.status(0).await.unwrap().version;
    let lab =
        Real { etcd: adapter(cluster.endpoints()), tools, cluster, held: Mutex::default(), learner: Mutex::default() };
    let mut seen = Transcript::default();
    Box::pin(scenario.play(&lab, &mut seen)).await;
    (version, seen.0)
}

fn adapter(endpoints: Vec<String>) -> Arc<Adapter> {
    Arc::new(Adapter::open(Sources { endpoints, ..Sources::default() }).unwrap())
}

struct Real {
    tools: Tools,
    cluster: Arc<EtcdCluster>,
    etcd: Arc<Adapter>,
    held: Mutex<Option<HeldDefrags>>,
    /// With its data, which must outlive it.
    learner: Mutex<Option<(Child, tempfile::TempDir)>>,
}

impl Real {
    fn index(&self, member: &Member) -> usize {
        self.cluster.members().iter().position(|real| real.name() == member.name).unwrap()
    }
}

impl Lab for Real {
    type Etcd = Adapter;

    fn etcd(&self) -> Arc<Adapter> {
        Arc::clone(&self.etcd)
    }

    fn with_endpoint(&self, member: &Member) -> Arc<Adapter> {
        adapter(member.client_urls.clone())
    }

    fn defragment_blindly(&self, member: &Member) -> JoinHandle<bool> {
        let (cluster, index) = (Arc::clone(&self.cluster), self.index(member));
        tokio::spawn(async move { cluster.defragment(index).await.is_ok() })
    }

    async fn hold_defrags(&self) {
        let held = HeldDefrags::start(&self.cluster).await.unwrap();
        *self.held.lock().unwrap() = Some(held);
    }

    fn release_defrags(&self) {
        *self.held.lock().unwrap() = None;
    }

    fn defrags_received(&self, member: &Member) -> usize {
        self.cluster.member(self.index(member)).defrag_log().unwrap().started
    }

    async fn defrags_done(&self, member: &Member) -> u64 {
        self.cluster.defrags_done(self.index(member)).await.unwrap()
    }

    async fn kill(&self, member: &Member) {
        self.cluster.kill(self.index(member)).await.unwrap();
    }

    /// Does not wait until it serves: without a quorum it never would.
    async fn restart(&self, member: &Member) {
        let _ = timeout(Duration::from_millis(500), self.cluster.restart(self.index(member))).await;
    }

    fn freeze(&self, member: &Member) {
        self.cluster.pause(self.index(member)).unwrap();
    }

    fn thaw(&self, member: &Member) {
        self.cluster.resume(self.index(member)).unwrap();
    }

    async fn add_learner(&self) {
        let (mut client, mut peer) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        let (client_url, peer_url) = (format!("http://{}", client.address()), format!("http://{}", peer.address()));
        let peer_urls = format!("--peer-urls={peer_url}");
        // Members that have just met do not count as healthy for that yet.
        until("the learner's place", Duration::from_mins(1), || async {
            self.cluster.etcdctl(&["member", "add", "etcd-4", "--learner", &peer_urls]).await
        })
        .await
        .unwrap();
        let others: Vec<_> =
            self.cluster.members().iter().map(|member| format!("{}={}", member.name(), member.peer_url())).collect();
        let dir = tempfile::tempdir().unwrap();
        client.release();
        peer.release();
        let learner = Command::new(self.tools.etcd(self.cluster.version()))
            .arg("--name=etcd-4")
            .arg(format!("--data-dir={}", dir.path().join("data").display()))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster={},etcd-4={peer_url}", others.join(",")))
            .args([
                "--initial-cluster-state=existing",
                "--initial-cluster-token=defragd-test",
                "--logger=zap",
                "--unsafe-no-fsync",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        *self.learner.lock().unwrap() = Some((learner, dir));
        // It has published its address when the list tells it.
        until("the learner's start", Duration::from_mins(1), || async {
            let mut client = self.cluster.client(0).await?;
            let members = client.member_list().await?;
            let started =
                members.members().iter().any(|member| member.is_learner() && !member.client_urls().is_empty());
            anyhow::ensure!(started, "{members:?}");
            Ok(())
        })
        .await
        .unwrap();
    }

    async fn write(&self, via: &Member) -> bool {
        let Ok(mut client) = self.cluster.client(self.index(via)).await else { return false };
        let mut taken = false;
        for _ in 0..3 {
            let put = client.put("lab", vec![b'x'; 100], None);
            taken = matches!(timeout(Duration::from_secs(3), put).await, Ok(Ok(_)));
            sleep(Duration::from_millis(200)).await;
        }
        taken
    }

    async fn fragment(&self) {
        fragment(&self.cluster, 64 * MIB, 32 * MIB).await.unwrap();
    }

    async fn make_history(&self) {
        let mut client = self.cluster.client(0).await.unwrap();
        for number in 0..200_u32 {
            client.put(format!("history/{}", number % 10), vec![b'x'; 100_000], None).await.unwrap();
        }
    }

    async fn exhaust_quota(&self) {
        exhaust_quota(&self.cluster, 8 * MIB).await.unwrap();
    }

    async fn arm_corrupt(&self, member: &Member) {
        self.cluster.arm_corrupt(self.index(member)).await.unwrap();
    }
}
