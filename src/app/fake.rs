//! Fakes at the ports for the tests of the application: an etcd that hangs as the real one does, and a
//! journal in memory that can fail.

use std::{collections::BTreeMap, future::pending, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    core::{
        cluster::{Alarm, ClusterId, Fact, Gauges, Member, Status},
        fixture,
        history::{Entry, Record, Request, RunId, RunView},
        note::SuccessionNote,
        order::{Order, OrderRecord},
        run::DefragError,
        verify::DataHash,
    },
    ports::{
        clock::Clock,
        etcd::{Etcd, Membership, Permit, Renewal, Visit},
        journal::{Journal, JournalError},
    },
};

#[derive(Default)]
struct FakeEtcdState {
    hung: BTreeMap<u64, bool>,
    busy: BTreeMap<u64, bool>,
    statuses: BTreeMap<u64, Status>,
    sending: bool,
    order: Vec<u64>,
    takes: Duration,
    in_flight: usize,
    most_in_flight: usize,
    listed: usize,
    pages_asked: usize,
    pages_dropped: bool,
    renewal: Option<Renewal>,
}

/// Three (or more) fragmented members; `Status` and reads hang while one is busy or hung.
pub(crate) struct FakeEtcd {
    members: Vec<Member>,
    state: Mutex<FakeEtcdState>,
    /// Clusters of different names must not look like one.
    pub(crate) cluster_id: ClusterId,
    /// How long the last observation before Defragment takes.
    pub(crate) looks_for: Duration,
}

impl FakeEtcd {
    pub(crate) fn new(size: u64) -> Self {
        let facts = fixture::cluster(size);
        let members: Vec<_> = facts.members.iter().map(|member| member.member.clone()).collect();
        let statuses = (1..=size).map(|id| (id, fixture::status(7))).collect();
        Self {
            members,
            cluster_id: facts.cluster_id,
            state: Mutex::new(FakeEtcdState { statuses, takes: Duration::from_secs(2), ..FakeEtcdState::default() }),
            looks_for: Duration::ZERO,
        }
    }

    /// Changes what all members report.
    pub(crate) fn report(&self, change: impl FnMut((&u64, &mut Status))) {
        self.state.lock().statuses.iter_mut().for_each(change);
    }

    /// How long a defragmentation takes from now on.
    pub(crate) fn take(&self, time: Duration) {
        self.state.lock().takes = time;
    }

    pub(crate) fn send_snapshots(&self, sending: bool) {
        self.state.lock().sending = sending;
    }

    pub(crate) fn hang(&self, id: u64) {
        self.state.lock().hung.insert(id, true);
    }

    pub(crate) fn recover(&self, id: u64) {
        self.state.lock().hung.remove(&id);
    }

    pub(crate) fn arm_no_space(&self) {
        for status in self.state.lock().statuses.values_mut() {
            status.errors = vec!["memberID:1 alarm:NOSPACE ".to_owned()];
        }
    }

    pub(crate) fn set_busy(&self, id: u64, busy: bool) {
        self.state.lock().busy.insert(id, busy);
    }

    pub(crate) fn order(&self) -> Vec<u64> {
        self.state.lock().order.clone()
    }

    /// As a member of 3.5, whose `Status` has no quota, with a metrics port that answers or whose packets are dropped.
    pub(crate) fn drop_pages(&self, dropped: bool) {
        let mut state = self.state.lock();
        state.pages_dropped = dropped;
        state.statuses.values_mut().for_each(|status| status.quota = None);
    }

    /// What the check of the credential files finds.
    pub(crate) fn find(&self, renewal: Renewal) {
        self.state.lock().renewal = Some(renewal);
    }

    pub(crate) fn pages_asked(&self) -> usize {
        self.state.lock().pages_asked
    }

    pub(crate) fn times_listed(&self) -> usize {
        self.state.lock().listed
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.state.lock().most_in_flight
    }

    async fn answering(&self, member: &Member) {
        let stuck = || {
            let state = self.state.lock();
            let set = |map: &BTreeMap<u64, bool>| map.get(&member.id.0).copied().unwrap_or(false);
            set(&state.hung) || set(&state.busy)
        };
        while stuck() {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Etcd for FakeEtcd {
    async fn renew(&self) -> Renewal {
        self.state.lock().renewal.clone().unwrap_or(Renewal::Unchanged)
    }

    async fn members(&self) -> Fact<Membership> {
        self.state.lock().listed += 1;
        if self.state.lock().hung.len() == self.members.len() {
            pending::<()>().await;
        }
        Ok(Membership { cluster_id: self.cluster_id, members: self.members.clone() })
    }

    async fn status(&self, member: &Member) -> Fact<Status> {
        self.answering(member).await;
        Ok(self.state.lock().statuses[&member.id.0].clone())
    }

    async fn linearizable_read(&self, member: &Member) -> Fact<()> {
        self.answering(member).await;
        Ok(())
    }

    async fn gauges(&self, member: &Member, _: Visit) -> Fact<Gauges> {
        self.state.lock().pages_asked += 1;
        if self.state.lock().pages_dropped || self.state.lock().hung.contains_key(&member.id.0) {
            pending::<()>().await;
        }
        let busy = self.state.lock().busy.get(&member.id.0).copied().unwrap_or(false);
        let open_snapshots = Some(u64::from(self.state.lock().sending));
        Ok(Gauges { defrag_in_flight: Some(busy), quota: Some(ByteSize::gib(2)), open_snapshots, ..Gauges::default() })
    }

    async fn alarms(&self, via: &Member) -> Fact<Vec<Alarm>> {
        self.answering(via).await;
        Ok(Vec::new())
    }

    async fn disarm(&self, via: &Member, _alarm: Alarm) -> Fact<()> {
        self.answering(via).await;
        for status in self.state.lock().statuses.values_mut() {
            status.errors.clear();
        }
        Ok(())
    }

    async fn compact(&self, via: &Member, _revision: u64) -> Fact<()> {
        self.answering(via).await;
        Ok(())
    }

    async fn move_leader(&self, leader: &Member, to: &Member) -> Fact<()> {
        self.answering(leader).await;
        for status in self.state.lock().statuses.values_mut() {
            status.leader = Some(to.id);
        }
        Ok(())
    }

    async fn hash(&self, member: &Member, _revision: u64) -> Fact<DataHash> {
        self.answering(member).await;
        Ok(DataHash { hash: 7, compact_revision: 1 })
    }

    async fn defragment(&self, member: &Member, permit: &dyn Permit) -> Result<(), DefragError> {
        let id = member.id.0;
        // Like the real one's last check of which member answers.
        sleep(self.looks_for).await;
        if let Some(reason) = permit.refusal() {
            return Err(DefragError::Withheld(reason));
        }
        {
            let mut state = self.state.lock();
            state.order.push(id);
            state.busy.insert(id, true);
            state.in_flight += 1;
            state.most_in_flight = state.most_in_flight.max(state.in_flight);
        }
        let takes = self.state.lock().takes;
        sleep(takes).await;
        let mut state = self.state.lock();
        state.in_flight -= 1;
        state.busy.insert(id, false);
        if let Some(status) = state.statuses.get_mut(&id) {
            status.db_size = ByteSize(status.db_size_in_use.0 + 4096);
        }
        Ok(())
    }
}

/// A journal in memory. After [`FakeJournal::break_down`] every write fails.
#[derive(Default)]
pub(crate) struct FakeJournal {
    records: Mutex<Vec<Record>>,
    orders: Mutex<Vec<OrderRecord>>,
    inherited: Mutex<Option<SuccessionNote>>,
    schedule: Mutex<Option<(String, Timestamp)>>,
    broken: Mutex<bool>,
    slow: Mutex<Duration>,
    clock: Option<VirtualClock>,
}

/// The time of day that goes with tokio's paused clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VirtualClock {
    base: Timestamp,
    since: tokio::time::Instant,
}

impl VirtualClock {
    pub(crate) fn starting_at(time: &str) -> Self {
        Self { base: time.parse().expect("a time"), since: tokio::time::Instant::now() }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        self.base + self.since.elapsed()
    }
}

impl FakeJournal {
    pub(crate) fn timed(clock: VirtualClock) -> Self {
        Self { clock: Some(clock), ..Self::default() }
    }

    fn now(&self) -> Timestamp {
        self.clock.map_or(Timestamp::UNIX_EPOCH, |clock| clock.now())
    }

    pub(crate) fn break_down(&self) {
        *self.broken.lock() = true;
    }

    pub(crate) fn recover(&self) {
        *self.broken.lock() = false;
    }

    /// From now on the journal records requests after half of this time, and returns runs as they were this long ago.
    pub(crate) fn slow(&self, time: Duration) {
        *self.slow.lock() = time;
    }

    fn takes(&self) -> Duration {
        *self.slow.lock()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.records.lock().iter().map(|record| record.entry.clone()).collect()
    }

    fn write(&self, run: Option<RunId>, entry: &Entry) -> Result<RunId, JournalError> {
        if *self.broken.lock() {
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        let mut records = self.records.lock();
        let next = records.iter().map(|record| record.run.0).max().unwrap_or(0) + 1;
        let run = run.unwrap_or(RunId(next));
        // As the real one: what cannot be read back must fail in tests, too.
        let written = serde_json::to_string(entry).expect("an entry can be written");
        let entry = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{written}: {error}"));
        records.push(Record { run, at: self.now(), entry });
        Ok(run)
    }
}

impl Journal for FakeJournal {
    async fn accept(&self, request: Request) -> Result<RunId, JournalError> {
        sleep(self.takes() / 2).await;
        self.write(None, &Entry::Accepted(request))
    }

    async fn append(&self, run: RunId, entry: Entry) -> Result<(), JournalError> {
        self.write(Some(run), &entry).map(|_| ())
    }

    async fn runs(&self, _limit: usize) -> Result<Vec<RunView>, JournalError> {
        let runs = RunView::fold(self.records.lock().clone());
        sleep(self.takes()).await;
        Ok(runs)
    }

    async fn runs_of(&self, cluster: &str, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let mut runs = self.runs(limit).await?;
        runs.retain(|run| run.request.cluster == cluster);
        Ok(runs)
    }

    async fn order(&self, cluster: &str, order: Order) -> Result<(), JournalError> {
        if *self.broken.lock() {
            return Err(JournalError::Write("no space left on device".to_owned()));
        }
        let record = OrderRecord { cluster: cluster.to_owned(), at: self.now(), order };
        self.orders.lock().push(record);
        Ok(())
    }

    async fn orders(&self, cluster: &str) -> Result<Vec<OrderRecord>, JournalError> {
        let mut orders = self.orders.lock().clone();
        orders.retain(|record| record.cluster == cluster);
        Ok(orders)
    }

    async fn inherit(&self, _cluster: &str, digest: SuccessionNote) -> Result<(), JournalError> {
        *self.inherited.lock() = Some(digest);
        Ok(())
    }

    async fn inherited(&self, _cluster: &str) -> Result<Option<SuccessionNote>, JournalError> {
        Ok(self.inherited.lock().clone())
    }

    async fn scheduled_since(&self, _cluster: &str, schedule: &str) -> Result<Timestamp, JournalError> {
        let now = self.now();
        let mut known = self.schedule.lock();
        let since =
            known.as_ref().filter(|(before, since)| before == schedule && *since <= now).map(|(_, since)| *since);
        Ok(known.insert((schedule.to_owned(), since.unwrap_or(now))).1)
    }

    async fn run(&self, run: RunId) -> Result<Option<RunView>, JournalError> {
        Ok(self.runs(usize::MAX).await?.into_iter().find(|view| view.id == run))
    }

    async fn records(&self, run: RunId) -> Result<Vec<Record>, JournalError> {
        let mut records = self.records.lock().clone();
        records.retain(|record| record.run == run);
        Ok(records)
    }

    async fn open_runs(&self) -> Result<Vec<RunView>, JournalError> {
        Ok(self.runs(usize::MAX).await?.into_iter().filter(|view| view.outcome.is_none()).collect())
    }

    async fn writable(&self) -> Result<(), JournalError> {
        let broken = *self.broken.lock();
        if broken { Err(JournalError::Write("disk full".to_owned())) } else { Ok(()) }
    }
}
