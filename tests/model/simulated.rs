//! The lab over the simulator's model, in virtual time.

use std::{sync::Arc, time::Duration};

use defragd::{
    core::{
        cluster::{Alarm, AlarmKind, Member},
        policy::Policy,
    },
    ports::etcd::{Etcd, Permitted},
};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    faults::{Fault, Schedule, Seedling},
    invariants::Watch,
    lab::{Lab, Transcript},
    model::{JobState, SimEtcd, World},
    scenarios::Scenario,
    sim::Sim,
};

const MIB: u64 = 1 << 20;
/// No scenario takes so long.
const NEVER: Duration = Duration::from_hours(100);
/// Entries a second, of 200 bytes each.
const WRITES: f64 = 1_000.0;

/// Plays a scenario on three members of this version.
pub async fn play(version: String, scenario: Scenario, seed: u64) -> Vec<String> {
    // A runtime of its own, with a clock of its own.
    let played = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let sim = Sim::new(World::new(schedule(version, seed), Watch::new(false)));
            let moving = tokio::spawn(Arc::clone(&sim).run());
            let mut seen = Transcript::default();
            Box::pin(scenario.play(&Simulated { sim }, &mut seen)).await;
            moving.abort();
            seen.0
        })
    });
    tokio::task::spawn_blocking(|| played.join().unwrap()).await.unwrap()
}

/// Nothing goes wrong in it but what the scenario does.
fn schedule(version: String, seed: u64) -> Schedule {
    let version: &'static str = version.leak();
    let member =
        Seedling { learner: false, version, size: 40 * MIB, in_use: 39 * MIB, has_page: true, has_gauge: true };
    Schedule {
        seed,
        policy: Policy::default(),
        members: vec![member.clone(), member.clone(), member],
        leader: usize::try_from(seed % 3).unwrap(),
        quota: 2048 * MIB,
        load: 0,
        look_before_defrag: true,
        longest_way: Duration::from_millis(100),
        history_percent: 0,
        no_space: false,
        requests: Vec::new(),
        gate: None,
        people: Vec::new(),
        faults: Vec::new(),
        deaths: Vec::new(),
        repaired_at: NEVER,
        fleet: None,
        sent_twice: false,
        stale_sizes: false,
        cadence: None,
        modes: Vec::new(),
    }
}

struct Simulated {
    sim: Arc<Sim>,
}

impl Simulated {
    fn node(&self, member: &Member) -> usize {
        self.sim.world().find(member.id).unwrap()
    }

    /// Does something to the servers, and lets everybody who waits look again.
    fn act(&self, act: impl FnOnce(&mut World)) {
        {
            let mut world = self.sim.world();
            act(&mut world);
            world.reconsider_leader();
        }
        self.sim.changed.notify_waiters();
        self.sim.planned.notify_one();
    }
}

impl Lab for Simulated {
    type Etcd = SimEtcd;

    fn etcd(&self) -> Arc<SimEtcd> {
        Arc::new(SimEtcd::new(Arc::clone(&self.sim)))
    }

    fn with_endpoint(&self, member: &Member) -> Arc<SimEtcd> {
        Arc::new(SimEtcd::with_endpoint(Arc::clone(&self.sim), member.id))
    }

    fn defragment_blindly(&self, member: &Member) -> JoinHandle<bool> {
        let (sim, member) = (Arc::clone(&self.sim), member.clone());
        tokio::spawn(async move {
            // Read at the call's first step, which is the next thing that happens.
            sim.world().schedule.look_before_defrag = false;
            let etcd = SimEtcd::new(Arc::clone(&sim));
            let call = etcd.defragment(&member, &Permitted);
            tokio::pin!(call);
            let first = futures_util::poll!(&mut call);
            sim.world().schedule.look_before_defrag = true;
            match first {
                std::task::Poll::Ready(answer) => answer.is_ok(),
                std::task::Poll::Pending => call.await.is_ok(),
            }
        })
    }

    async fn hold_defrags(&self) {
        self.act(|world| world.nodes.iter_mut().for_each(|node| node.slow = 200));
    }

    /// Those under way still take their time, which costs nothing here.
    fn release_defrags(&self) {
        self.act(|world| world.nodes.iter_mut().for_each(|node| node.slow = 1));
    }

    fn defrags_received(&self, member: &Member) -> usize {
        let node = self.node(member);
        let on_its_way = [JobState::Flying, JobState::Buffered];
        self.sim.world().jobs.iter().filter(|job| job.node == node && !on_its_way.contains(&job.state)).count()
    }

    async fn defrags_done(&self, member: &Member) -> u64 {
        let node = self.node(member);
        let world = self.sim.world();
        let done = |job: &&crate::model::Job| job.node == node && job.state == JobState::Done;
        world.jobs.iter().filter(done).count() as u64
    }

    async fn kill(&self, member: &Member) {
        let node = self.node(member);
        self.act(|world| world.kill(node, None));
    }

    async fn restart(&self, member: &Member) {
        let node = self.node(member);
        self.act(|world| world.restart(node));
    }

    fn freeze(&self, member: &Member) {
        let node = self.node(member);
        self.act(|world| world.strike(Fault::Freeze { node, time: NEVER }));
    }

    fn thaw(&self, member: &Member) {
        let node = self.node(member);
        self.act(|world| world.thaw(node));
    }

    async fn add_learner(&self) {
        self.act(|world| world.strike(Fault::AddMember { learner: true }));
        sleep(Duration::from_secs(30)).await;
    }

    async fn write(&self, via: &Member) -> bool {
        let node = self.node(via);
        let mut taken = false;
        for _ in 0..3 {
            let before = self.sim.world().committed;
            if self.sim.world().serves(node) {
                self.act(|world| world.load = WRITES);
            }
            sleep(Duration::from_millis(200)).await;
            self.act(|world| world.load = 0.0);
            taken = self.sim.world().committed > before;
        }
        taken
    }

    async fn fragment(&self) {
        self.act(|world| {
            for node in &mut world.nodes {
                (node.size, node.in_use) = (300 * MIB, 100 * MIB);
            }
        });
    }

    async fn make_history(&self) {
        self.act(|world| {
            for node in &mut world.nodes {
                (node.size, node.in_use) = (300 * MIB, 298 * MIB);
            }
            world.history_percent = 60;
        });
    }

    async fn exhaust_quota(&self) {
        self.act(|world| {
            for node in &mut world.nodes {
                (node.size, node.in_use, node.quota) = (300 * MIB, 100 * MIB, 299 * MIB);
            }
        });
        let via = self.sim.world().nodes[0].member.clone();
        self.write(&via).await;
    }

    async fn arm_corrupt(&self, member: &Member) {
        let id = member.id;
        self.act(|world| world.alarms.push(Alarm { kind: AlarmKind::Corrupt, member: Some(id) }));
    }
}
