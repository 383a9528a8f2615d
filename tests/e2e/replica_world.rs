//! One cluster and its replicas, each on a machine of its own, and what is done to them in `replica_faults`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use testkit::{
    Cut, DefragWatch, Defragd, EtcdSpec, EtcdVersion, HeldDefrags, Lan, Member, Transport, exhaust_quota, until,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    faults::logs,
    kill::random,
    rig::{MIB, MINUTE, Rig, TOKEN, binary, firing},
};

/// The least that the configuration allows.
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// A takeover, half a minute in which the new holder keeps still, and a run, on a machine with other work.
const LONG: Duration = Duration::from_mins(5);
/// Each defrag lasts at least as long as one of some hundred megabytes.
const HELD: Duration = Duration::from_millis(600);
const QUOTA: u64 = 48 * MIB;
const PORT: u16 = 9379;

/// What a world is like.
pub(crate) struct Worlds {
    pub(crate) number: u8,
    pub(crate) replicas: usize,
    pub(crate) version: EtcdVersion,
    /// Each round begins with a quota that is used up.
    pub(crate) without_space: bool,
    /// So many of them in runs.
    pub(crate) faults: u32,
    /// One round only, whatever it hits.
    pub(crate) short: bool,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Kill,
    KillAndLose,
    Terminate,
    Pause,
    Cut(Cut),
}

impl Kind {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Kill => "killed",
            Self::KillAndLose => "killed, its journal lost",
            Self::Terminate => "ended in order",
            Self::Pause => "stopped past the TTL",
            Self::Cut(Cut::Silent) => "cut off in silence",
            Self::Cut(Cut::Unplugged) => "unplugged",
        }
    }
}

const IN_A_DEFRAG: &str = "in the middle of a defrag";
const BETWEEN: &str = "in a run, between defrags";

/// One fault.
#[derive(Clone, Debug)]
pub(crate) struct FaultReport {
    pub(crate) kind: Kind,
    pub(crate) moment: &'static str,
    pub(crate) of_holder: bool,
    victim: usize,
    at: Timestamp,
    pub(crate) lasted: Duration,
    /// Seconds from the fault to the first line with which another replica says that it holds the lock.
    pub(crate) taken: Option<f64>,
    /// … to the first plan of that one.
    pub(crate) planned: Option<f64>,
    /// … and its first Defragment.
    pub(crate) acted: Option<f64>,
}

impl FaultReport {
    pub(crate) fn in_a_run(&self) -> bool {
        [IN_A_DEFRAG, BETWEEN].contains(&self.moment)
    }
}

struct Replica {
    index: usize,
    defragd: Option<Defragd>,
    /// The runs that a 202 has promised, by the journal that lives.
    promised: BTreeSet<i64>,
    /// Journals that were "lost", set aside to count what they hold.
    aside: Vec<PathBuf>,
}

impl Replica {
    fn name(&self) -> String {
        format!("replica-{}", self.index)
    }

    async fn lock(&self) -> anyhow::Result<Value> {
        Ok(self.cluster().await?["lock"].clone())
    }

    async fn cluster(&self) -> anyhow::Result<Value> {
        let defragd = self.defragd.as_ref().ok_or_else(|| anyhow::anyhow!("it is down"))?;
        let clusters = timeout(Duration::from_secs(2), defragd.json("/api/v1/clusters")).await??;
        Ok(clusters["clusters"][0].clone())
    }
}

pub(crate) struct World {
    plan: Worlds,
    rig: Rig,
    lan: Lan,
    replicas: Vec<Replica>,
    watch: DefragWatch,
    random: u64,
    posted: u32,
    /// Promises that went with their journals.
    lost: usize,
    reports: Vec<FaultReport>,
}

impl World {
    pub(crate) async fn create(plan: Worlds) -> Self {
        let lan = Lan::create(plan.number, plan.replicas).await.unwrap();
        let mut spec = EtcdSpec::new(plan.version).transport(Transport::Plain).hosts(&[lan.here(); 3]);
        if plan.without_space {
            spec = spec.quota_bytes(QUOTA);
        }
        let rig = Rig::with(spec).await;
        std::fs::write(rig.path("token"), format!("{TOKEN}\n")).unwrap();
        let watch = DefragWatch::start(&rig.cluster).unwrap();
        let replica = |index| Replica { index, defragd: None, promised: BTreeSet::new(), aside: Vec::new() };
        let replicas = (0..plan.replicas).map(replica).collect();
        let random = plan.seed;
        let mut world = Self { plan, rig, lan, replicas, watch, random, posted: 0, lost: 0, reports: Vec::new() };
        for index in 0..world.replicas.len() {
            world.start(index).await;
        }
        world
    }

    /// To the end, with everything checked. Gives what was done.
    pub(crate) async fn run(mut self) -> Vec<FaultReport> {
        for round in 1.. {
            assert!(round < self.plan.faults * 4, "too few of {round} rounds hit a run: {:?}", self.reports);
            self.all_stand().await;
            self.round().await;
            eprintln!("{}: {} faults after {round} rounds", self.label(), self.reports.len());
            let in_runs = self.reports.iter().filter(|fault| fault.in_a_run()).count();
            if self.plan.short || in_runs >= usize::try_from(self.plan.faults).unwrap() {
                break;
            }
        }
        self.judge().await
    }

    async fn round(&mut self) {
        if self.plan.without_space {
            exhaust_quota(&self.rig.cluster, 8 * MIB).await.unwrap();
        } else {
            self.rig.fragment().await;
        }
        let held = HeldDefrags::start_for(&self.rig.cluster, HELD).await.unwrap();
        // Without space a replica that lost its candidacy cannot become a candidate again: one candidate must remain.
        let most = if self.plan.without_space { self.plan.replicas as u64 - 1 } else { 3 };
        for turn in 0..most {
            let victim = self.victim(turn).await;
            if turn > 0 && self.is_tight().await {
                break;
            }
            self.strike(victim, turn).await;
            if !self.plan.short && self.dice(3) == 0 {
                break;
            }
        }
        self.settle().await;
        drop(held);
        self.rig.assert_tight().await;
        assert_eq!(self.rig.cluster.alarms().await.unwrap(), [], "{}", self.label());
    }

    /// Mostly the holder. In a short test only at first: later faults happen while the next holder settles.
    async fn victim(&mut self, turn: u64) -> usize {
        let holder = self.holder().await;
        let random = usize::try_from(self.dice(self.plan.replicas as u64)).unwrap();
        match (holder, self.plan.short) {
            (Some(holder), true) if turn == 0 => holder,
            (Some(holder), true) => (holder + 1 + random % (self.plan.replicas - 1)) % self.plan.replicas,
            (Some(holder), false) if self.dice(4) < 3 => holder,
            _ => random,
        }
    }

    /// One fault from its beginning to its end.
    async fn strike(&mut self, victim: usize, turn: u64) {
        if !self.plan.short || turn == 0 {
            self.wait_for_a_moment().await;
        }
        let in_a_defrag = self.defragments();
        let (holder, active) = self.active().await;
        // Asked after it was looked: a run that has ended meanwhile is none.
        let moment = match (in_a_defrag, active) {
            (true, _) => IN_A_DEFRAG,
            (false, true) => BETWEEN,
            (false, false) if self.is_tight().await => "with nothing to do",
            (false, false) => "before the holder began",
        };
        let kind = match self.dice(11) {
            // In each `cargo test`: without space, the holder dies in the run, another replica resumes it.
            _ if self.plan.short && self.plan.without_space && turn == 0 => Kind::Kill,
            0 | 1 => Kind::Kill,
            2 => Kind::KillAndLose,
            3 | 4 => Kind::Pause,
            5 | 6 => Kind::Cut(Cut::Silent),
            7 => Kind::Cut(Cut::Unplugged),
            _ => Kind::Terminate,
        };
        // A killed one is back before its TTL has ended, or after.
        let long = Duration::from_millis(12_000 + self.dice(8_000));
        let lasted = match kind {
            Kind::Kill | Kind::KillAndLose | Kind::Terminate => Duration::from_millis(self.dice(15_000)),
            _ => long,
        };
        eprintln!("{}: replica {victim} (holder {holder:?}) {} {moment} for {lasted:?}", self.label(), kind.label());
        let at = Timestamp::now();
        self.begin(victim, kind).await;
        self.reports.push(FaultReport {
            kind,
            moment,
            of_holder: holder == Some(victim),
            victim,
            at,
            lasted,
            taken: None,
            planned: None,
            acted: None,
        });
        let end = Instant::now() + lasted;
        while Instant::now() < end {
            self.post_somewhere().await;
            let pause = Duration::from_millis(1_000 + self.dice(3_000));
            sleep(pause.min(end.saturating_duration_since(Instant::now()))).await;
        }
        self.end(victim, kind).await;
    }

    async fn begin(&mut self, victim: usize, kind: Kind) {
        match kind {
            Kind::Kill | Kind::KillAndLose => {
                let killed = self.replicas[victim].defragd.take().unwrap();
                killed.kill().await.unwrap();
                if kind == Kind::KillAndLose {
                    let journal = self.journal(victim);
                    let replica = &mut self.replicas[victim];
                    let aside = journal.with_extension(format!("lost-{}", replica.aside.len()));
                    std::fs::rename(&journal, &aside).unwrap();
                    replica.aside.push(aside);
                    self.lost += std::mem::take(&mut replica.promised).len();
                }
            }
            Kind::Terminate => {
                self.replicas[victim].defragd.take().unwrap().terminate(MINUTE).await.unwrap();
            }
            Kind::Pause => self.replicas[victim].defragd.as_ref().unwrap().pause().unwrap(),
            Kind::Cut(how) => self.lan.cut(victim, how).unwrap(),
        }
    }

    async fn end(&mut self, victim: usize, kind: Kind) {
        match kind {
            Kind::Kill | Kind::KillAndLose | Kind::Terminate => self.start(victim).await,
            Kind::Pause => self.replicas[victim].defragd.as_ref().unwrap().resume().unwrap(),
            Kind::Cut(_) => self.lan.repair(victim).unwrap(),
        }
    }

    async fn start(&mut self, index: usize) {
        let name = self.replicas[index].name();
        let address = std::net::SocketAddr::new(self.lan.machine(index).ip(), PORT);
        let token = self.rig.path("token").display().to_string();
        let mut args = self.rig.flags();
        args.retain(|flag| !flag.starts_with("--data-dir"));
        // Each round is a day's work and more: what holds automation back is not the matter here.
        let free = [
            "--cluster-name=demo",
            "--mode=enforce",
            "--cooldown=0s",
            "--pause-between-members=200ms",
            "--max-runs-per-day=10000",
            "--breaker-failures=10000",
            "--lock.kind=etcd",
            "--lock.ttl=10s",
        ];
        args.extend(free.map(str::to_owned));
        args.extend([
            format!("--data-dir={}", self.journal(index).display()),
            format!("--web.listen-address={address}"),
            format!("--web.bearer-token-file={token}"),
            format!("--lock.name={name}"),
            format!("--lock.url=http://{address}"),
            format!("--lock.token-file={token}"),
        ]);
        let started = Defragd::start_at(&self.lan.machine(index), binary(), &args, &self.log(index)).await;
        self.replicas[index].defragd = Some(started.unwrap());
    }

    /// Waits until a run is under way, if one starts, and then a bit longer: half the time until a member is in the middle
    /// of a defrag.
    async fn wait_for_a_moment(&mut self) {
        let end = Instant::now() + Duration::from_secs(75);
        let mut post_at = Instant::now();
        while !self.active().await.1 && Instant::now() < end {
            if Instant::now() >= post_at {
                if self.is_tight().await {
                    return;
                }
                self.post_somewhere().await;
                post_at = Instant::now() + Duration::from_secs(5);
            }
            sleep(Duration::from_millis(50)).await;
        }
        if self.dice(2) == 0 {
            // The first one, or one of those after it.
            sleep(Duration::from_millis(self.dice(2_000))).await;
            let _ = until("a defrag", Duration::from_secs(3), || async {
                anyhow::ensure!(self.defragments(), "none");
                Ok(())
            })
            .await;
            sleep(Duration::from_millis(self.dice(400))).await;
        } else {
            sleep(Duration::from_millis(self.dice(2_500))).await;
        }
    }

    /// As an Alertmanager does that has one of the replicas, or all of them.
    async fn post_somewhere(&mut self) {
        self.posted += 1;
        let mut alert = firing();
        // A new firing each time.
        alert["alerts"][0]["startsAt"] =
            format!("2026-11-23T10:{:02}:{:02}.000Z", self.posted / 60 % 60, self.posted % 60).into();
        let count = self.replicas.len();
        let to = usize::try_from(self.dice(count as u64 + 1)).unwrap();
        for index in (0..count).filter(|index| to == count || *index == to) {
            let replica = &mut self.replicas[index];
            let Some(defragd) = &replica.defragd else { continue };
            // Who waits for an answer of a machine that is cut off does not get one.
            let post = timeout(Duration::from_secs(2), defragd.post_alerts(&alert, Some(TOKEN)));
            let Ok(Ok(answer)) = post.await else { continue };
            assert_eq!(answer.status, 202, "{}", answer.body);
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            let decided = &body["alerts"][0];
            if decided["decision"] == "accepted" {
                replica.promised.insert(decided["run"].as_i64().unwrap_or_else(|| panic!("{body}")));
            }
        }
    }

    /// Left to itself, with the alert posted again and again, it ends the work, and every request has its end.
    async fn settle(&mut self) {
        let end = Instant::now() + LONG;
        let mut post_at = Instant::now();
        loop {
            let tight = self.is_tight().await && self.rig.cluster.alarms().await.is_ok_and(|alarms| alarms.is_empty());
            if !tight && Instant::now() >= post_at {
                self.post_somewhere().await;
                post_at = Instant::now() + Duration::from_secs(5);
            }
            let open = self.open().await;
            if tight && open.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{}: tight: {tight}, open: {open:?}\n{}", self.label(), self.tails());
            sleep(Duration::from_millis(300)).await;
        }
    }

    async fn open(&self) -> Vec<String> {
        let mut open = Vec::new();
        for replica in &self.replicas {
            match replica.cluster().await {
                Ok(cluster) if cluster["active_run"].is_null() && cluster["queued_run"].is_null() => {}
                other => open.push(format!("{}: {other:?}", replica.name())),
            }
        }
        open
    }

    /// Every replica is a candidate for the lock and knows the holder.
    async fn all_stand(&self) {
        for replica in &self.replicas {
            until(&format!("{} to stand for the lock", replica.name()), MINUTE, || async {
                let lock = replica.lock().await?;
                anyhow::ensure!(lock["held"] == true || lock["holder"].is_string(), "{lock}");
                Ok(())
            })
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.tails()));
        }
    }

    async fn holder(&self) -> Option<usize> {
        self.active().await.0
    }

    /// Who holds the lock, and whether it runs.
    async fn active(&self) -> (Option<usize>, bool) {
        for replica in &self.replicas {
            if let Ok(cluster) = replica.cluster().await
                && cluster["lock"]["held"] == true
            {
                return (Some(replica.index), !cluster["active_run"].is_null());
            }
        }
        (None, false)
    }

    fn defragments(&self) -> bool {
        self.rig.cluster.members().iter().any(Member::has_defrag_file)
    }

    async fn is_tight(&self) -> bool {
        match self.rig.cluster.statuses().await {
            Ok(all) => all.iter().all(|status| status.size * 10 < status.in_use * 13),
            Err(_) => false, // One of them is being defragmented.
        }
    }

    /// The final state according to the servers, the journals and the logs.
    async fn judge(mut self) -> Vec<FaultReport> {
        for replica in &self.replicas {
            replica.defragd.as_ref().unwrap().terminate(MINUTE).await.unwrap();
        }
        let label = self.label();
        let mut outcomes = BTreeMap::<String, u32>::new();
        let mut intents = BTreeMap::<String, usize>::new();
        let mut promised = 0;
        let mut attempts = Vec::new();
        for replica in &self.replicas {
            promised += replica.promised.len();
            let journal = self.journal(replica.index);
            for (outcome, runs) in ended(&journal, &replica.promised, &format!("{label}, {}", replica.name())) {
                *outcomes.entry(outcome).or_default() += runs;
            }
            for journal in replica.aside.iter().chain([&journal]) {
                for (member, count) in intended(journal) {
                    *intents.entry(member).or_default() += count;
                }
                attempts.extend(attempted(journal).into_iter().map(|(at, term)| (at, term, replica.index)));
            }
        }
        let logs = logs(&self.rig.cluster);
        for (member, log) in self.rig.cluster.members().iter().zip(&logs) {
            assert_eq!((log.most_at_once, log.failed), (1, 0), "{label}: {}: {log:?}", member.name());
            let intents = intents.get(member.name()).copied().unwrap_or_default();
            assert!(log.started <= intents, "{label}: {} got {} for {intents} intents", member.name(), log.started);
        }
        self.assert_one_at_a_time();
        assert_eq!(late(attempts), None, "{label}: two acted under one term, or one under a term that was over");
        self.measure();
        let timeline = self.watch.stop().await;
        assert_eq!(timeline.max_in_flight(), 1, "{label}: two members at once, by their own metrics");
        eprintln!(
            "{label}: {promised} requests promised, {} more lost with their journals; outcomes {outcomes:?}; \
             Defragments {:?}, intents {intents:?}",
            self.lost,
            logs.iter().map(|log| log.started).collect::<Vec<_>>(),
        );
        self.reports
    }

    /// By the members' logs, which no polling can miss.
    fn assert_one_at_a_time(&self) {
        let members = self.rig.cluster.members().iter();
        let spans = members
            .flat_map(|member| member.defrag_spans().unwrap().into_iter().map(|(from, to)| (from, to, member.name())));
        let spans: Vec<_> = spans.collect();
        assert!(!spans.is_empty(), "{}: nothing was defragmented", self.label());
        assert_eq!(overlap(spans), None, "{}: two at once", self.label());
    }

    /// Reads from the logs when others took over.
    fn measure(&mut self) {
        let logs: Vec<_> =
            (0..self.replicas.len()).map(|index| std::fs::read_to_string(self.log(index)).unwrap()).collect();
        let ends: Vec<_> = self.reports.iter().skip(1).map(|next| next.at).chain([Timestamp::MAX]).collect();
        for (fault, next) in self.reports.iter_mut().zip(ends).filter(|(fault, _)| fault.of_holder) {
            let since = |at: Timestamp| at.duration_since(fault.at).as_secs_f64();
            let others = logs.iter().enumerate().filter(|(index, _)| *index != fault.victim);
            let first = |log: &str, from: Timestamp, says: &str| {
                log.lines().filter(|line| line.contains(says)).find_map(|line| {
                    let at = line.strip_prefix("ts=")?.split(' ').next()?.parse::<Timestamp>().ok()?;
                    (from <= at && at < next).then_some(at)
                })
            };
            // The apostrophe before it is escaped there.
            let taken =
                others.filter_map(|(_, log)| Some((first(log, fault.at, "acquired the cluster's lock\"")?, log))).min();
            let Some((at, log)) = taken else { continue };
            let planned = first(log, at, "message=planned ").map(since);
            let acted = first(log, at, "message=defragmenting ").map(since);
            (fault.taken, fault.planned, fault.acted) = (Some(since(at)), planned, acted);
        }
    }

    fn journal(&self, index: usize) -> PathBuf {
        self.rig.path(&format!("journal-{index}"))
    }

    fn log(&self, index: usize) -> PathBuf {
        self.rig.path(&format!("replica-{index}.log"))
    }

    fn tails(&self) -> String {
        let tail = |index| format!("replica {index}:\n{}\n", testkit::tail(&self.log(index), 40));
        (0..self.replicas.len()).map(tail).collect()
    }

    fn label(&self) -> String {
        let Worlds { number, replicas, version, without_space, seed, .. } = &self.plan;
        let without = if *without_space { ", without space" } else { "" };
        format!("world {number} ({replicas} replicas, etcd {version}{without}, seed {seed})")
    }

    fn dice(&mut self, sides: u64) -> u64 {
        random(&mut self.random) % sides
    }
}

/// Each accepted request has exactly one outcome. Gives how often each is there.
fn ended(journal: &std::path::Path, promised: &BTreeSet<i64>, label: &str) -> BTreeMap<String, u32> {
    let db = rusqlite::Connection::open(journal.join("journal.db")).unwrap();
    let entries = |kind: &str| -> Vec<(i64, String)> {
        let query = "SELECT run, body FROM entry WHERE json_extract(body, '$.kind') = ?1";
        let mut statement = db.prepare(query).unwrap();
        let rows = statement.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let accepted: BTreeSet<_> = entries("accepted").into_iter().map(|(run, _)| run).collect();
    assert!(promised.is_subset(&accepted), "{label}: lost: {:?}", promised.difference(&accepted));
    let mut finished = BTreeMap::<i64, u32>::new();
    let mut outcomes = BTreeMap::new();
    for (run, body) in entries("finished") {
        *finished.entry(run).or_default() += 1;
        let body: Value = serde_json::from_str(&body).unwrap();
        let outcome = [&body["outcome"], &body["outcome"]["outcome"]].into_iter().find_map(Value::as_str);
        *outcomes.entry(outcome.unwrap_or("?").to_owned()).or_default() += 1;
    }
    for run in accepted {
        assert_eq!(finished.get(&run), Some(&1), "{label}: the outcomes of run {run}");
    }
    outcomes
}

/// How many attempts it announced on each member.
fn intended(journal: &std::path::Path) -> BTreeMap<String, usize> {
    let db = rusqlite::Connection::open(journal.join("journal.db")).unwrap();
    let query = "SELECT json_extract(body, '$.member') FROM entry WHERE json_extract(body, '$.kind') = 'intent'";
    let mut statement = db.prepare(query).unwrap();
    let members = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    members.fold(BTreeMap::new(), |mut all, member| {
        *all.entry(member.unwrap()).or_default() += 1;
        all
    })
}

/// When a Defragment was announced that was not held back then, and under which term of the lock.
fn attempted(journal: &std::path::Path) -> Vec<(Timestamp, u64)> {
    let db = rusqlite::Connection::open(journal.join("journal.db")).unwrap();
    let mut statement = db.prepare("SELECT run, at, body FROM entry ORDER BY seq").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    let mut terms = BTreeMap::<i64, u64>::new();
    let mut attempts = Vec::<(i64, Timestamp, u64)>::new();
    for row in rows {
        let (run, at, body): (i64, String, String) = row.unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        match body["kind"].as_str().unwrap() {
            "started" => {
                terms.insert(run, body["term"].as_u64().unwrap_or_else(|| panic!("without a term: {body}")));
            }
            "intent" => attempts.push((run, at.parse().unwrap(), terms[&run])),
            "result" if body.to_string().contains("\"not_sent\"") => {
                let last = attempts.iter().rposition(|(of, ..)| *of == run).unwrap();
                attempts.remove(last);
            }
            _ => {}
        }
    }
    attempts.into_iter().map(|(_, at, term)| (at, term)).collect()
}

type Attempt = (Timestamp, u64, usize);

/// Two attempts, one after the other, of which the later one is of an earlier term, or of the same and another replica.
fn late(mut attempts: Vec<Attempt>) -> Option<(Attempt, Attempt)> {
    attempts.sort_unstable();
    let wrong =
        |(before, after): (&Attempt, &Attempt)| after.1 < before.1 || (after.1 == before.1 && after.2 != before.2);
    attempts.windows(2).find(|pair| wrong((&pair[0], &pair[1]))).map(|pair| (pair[0], pair[1]))
}

#[test]
fn an_attempt_under_a_term_that_is_over_is_found() {
    let at = |second| Timestamp::from_second(second).unwrap();
    assert_eq!(late(vec![(at(3), 8, 0), (at(1), 5, 0), (at(2), 5, 0)]), None);
    assert!(late(vec![(at(1), 5, 0), (at(2), 8, 1), (at(3), 5, 0)]).is_some());
    assert!(late(vec![(at(1), 5, 0), (at(2), 5, 1)]).is_some());
}

type Span<'a> = (String, String, &'a str);

/// Two spans that have a moment in common.
fn overlap(mut spans: Vec<Span<'_>>) -> Option<(Span<'_>, Span<'_>)> {
    spans.sort();
    let pair = spans.windows(2).find(|pair| pair[1].0 < pair[0].1)?;
    Some((pair[0].clone(), pair[1].clone()))
}

#[test]
fn members_that_defragment_at_the_same_time_are_found() {
    let span = |from: &str, to: &str, member| (from.to_owned(), to.to_owned(), member);
    assert_eq!(overlap(vec![span("3", "4", "b"), span("1", "2", "a"), span("2", "3", "c")]), None);
    assert!(overlap(vec![span("3", "4", "b"), span("1", "5", "a")]).is_some());
}
