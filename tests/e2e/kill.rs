//! `kill -9` and SIGTERM of defragd at random moments of real runs: nothing that was accepted is lost, nothing happens
//! twice at once, and in the end the cluster is defragmented, without another request.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use testkit::{DefragWatch, Defragd, EtcdSpec, EtcdVersion, HeldDefrags, Member, Transport, on_each_version, until};

use crate::{
    faults::{journal, logs, versions},
    rig::{MINUTE, Rig, TOKEN, firing},
};

/// For each line of etcd: more than twenty altogether, also where 3.6 is not there.
const ENDS: u32 = 10;
/// For `make soak`: so many of each kind.
const MANY_ENDS: u32 = 100;
const IN_ORDER: &str = "ended in order";
const IN_A_DEFRAG: &str = "in the middle of a defrag";
/// Each defrag lasts at least as long as one of some hundred megabytes.
const HELD: Duration = Duration::from_millis(600);

on_each_version! { ends_at_random_moments_lose_and_double_nothing_on _ => |version| ends(version, ENDS, 1) }

#[tokio::test(flavor = "multi_thread")]
#[ignore = "many minutes: `make soak`"]
async fn soak_many_ends_lose_and_double_nothing() {
    for version in versions() {
        ends(version, 2 * MANY_ENDS, MANY_ENDS).await;
    }
}

/// The next number of a splitmix64 sequence.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `DEFRAGD_SEED` repeats a sequence of moments; what the servers do in them is theirs.
pub(crate) fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let given = std::env::var("DEFRAGD_SEED").ok().map(|seed| seed.parse().unwrap());
    given.unwrap_or_else(|| u64::try_from(now()).unwrap() % 1_000_000)
}

struct Victim {
    rig: Rig,
    random: u64,
    /// The runs that a 202 has promised.
    promised: BTreeSet<i64>,
    posted: u32,
    /// Whether the alert is sent again at each start. If not, the accepted request is served anyway.
    alert_again: bool,
    /// The newest run in the journal right after each kill, and how many orderly stops interrupted one.
    hit: BTreeMap<&'static str, u32>,
}

impl Victim {
    async fn start(&self) -> Defragd {
        // Each round is a day's work and more: what holds automation back is not the matter here.
        let flags = [
            "--mode=enforce",
            "--cooldown=0s",
            "--pause-between-members=200ms",
            "--max-runs-per-day=10000",
            "--breaker-failures=10000",
        ];
        self.rig.serve(&flags).await
    }

    /// Posts the alert as Alertmanager does again and again, with another start each time.
    async fn post(&mut self, defragd: &Defragd) {
        self.posted += 1;
        let mut alert = firing();
        alert["alerts"][0]["startsAt"] = format!("2026-11-23T10:00:00.{:03}Z", self.posted).into();
        let Ok(answer) = defragd.post_alerts(&alert, Some(TOKEN)).await else { return };
        assert_eq!(answer.status, 202, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let decided = &body["alerts"][0];
        if decided["decision"] == "accepted" {
            assert!(self.promised.insert(decided["run"].as_i64().unwrap()), "a number was given twice: {body}");
        }
    }

    /// Remembers where the end hit. At most one run is open.
    fn note(&mut self, in_a_defrag: bool) {
        let runs = journal(&self.rig);
        let newest = runs.first();
        let hit = match newest {
            None => "before anything",
            Some(run) if run["reason"]["code"] == "shutting_down" => IN_ORDER,
            Some(run) if run["outcome"].is_string() => "after the end",
            Some(run) if run["started_at"].is_null() => "before the start",
            Some(run) if !run["open_intent"].is_null() && in_a_defrag => IN_A_DEFRAG,
            Some(run) if !run["open_intent"].is_null() => "before or after the defrag of a member in hand",
            Some(_) => "between members",
        };
        *self.hit.entry(hit).or_default() += 1;
        let open = runs.iter().filter(|run| run["outcome"].is_null()).count();
        assert!(open <= 1, "{open} runs are open at once: {runs:#?}");
    }

    fn in_a_run(&self) -> u32 {
        self.hit.iter().filter(|(hit, _)| !["after the end", "before anything"].contains(*hit)).map(|(_, n)| n).sum()
    }

    fn defragments(&self) -> bool {
        self.rig.cluster.members().iter().any(Member::has_defrag_file)
    }

    /// Ends it at one random moment: a third of them when a member is in the middle of a defrag, and a bit.
    async fn end_once(&mut self) {
        let defragd = self.start().await;
        if self.alert_again {
            self.post(&defragd).await;
        }
        let dice = random(&mut self.random);
        let wait = dice / 3;
        if dice.is_multiple_of(3) {
            // A cluster that is not fragmented, or whose run is refused, has none.
            let _ = until("a defrag", Duration::from_secs(2), || async {
                anyhow::ensure!(self.defragments(), "none");
                Ok(())
            })
            .await;
            tokio::time::sleep(Duration::from_millis(wait % 400)).await;
        } else {
            // A run that is resumed after a kill first watches the member under way for some seconds.
            tokio::time::sleep(Duration::from_millis(wait % if dice % 3 == 1 { 3_000 } else { 7_000 })).await;
        }
        let in_a_defrag = self.defragments();
        if random(&mut self.random).is_multiple_of(2) {
            defragd.kill().await.unwrap();
        } else {
            // A member in hand is waited for.
            defragd.terminate(MINUTE).await.unwrap();
        }
        self.note(in_a_defrag);
    }

    /// Each accepted request has exactly one outcome, and each attempt had its intent before.
    fn check_journal(&self) {
        let runs = journal(&self.rig);
        let ids: BTreeSet<_> = runs.iter().map(|run| run["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), runs.len(), "a run is there twice");
        assert!(self.promised.is_subset(&ids), "lost: {:?}", self.promised.difference(&ids));
        let path = self.rig.path("journal/journal.db");
        let journal = rusqlite::Connection::open(path).unwrap();
        for run in &runs {
            assert!(run["outcome"].is_string(), "without an outcome: {run}");
            let query = "SELECT count(*) FROM entry WHERE run = ?1 AND json_extract(body, '$.kind') = 'finished'";
            let finished: i64 = journal.query_row(query, [run["id"].as_i64().unwrap()], |row| row.get(0)).unwrap();
            assert_eq!(finished, 1, "{run}");
        }
        for member in self.rig.cluster.members() {
            let query = "SELECT count(*) FROM entry WHERE json_extract(body, '$.kind') = 'intent' \
                         AND json_extract(body, '$.member') = ?1";
            let intents: i64 = journal.query_row(query, [member.name()], |row| row.get(0)).unwrap();
            let received = member.defrag_log().unwrap().started;
            assert!(
                i64::try_from(received).unwrap() <= intents,
                "{} got {received} Defragments for {intents} intents",
                member.name()
            );
        }
    }
}

/// Until so many ends hit a run, and so many of each kind.
async fn ends(version: EtcdVersion, ends: u32, of_each: u32) {
    let seed = seed();
    eprintln!("etcd {version}, DEFRAGD_SEED={seed}");
    let rig = Rig::with(EtcdSpec::new(version).transport(Transport::Plain)).await;
    let watch = DefragWatch::start(&rig.cluster).unwrap();
    let mut victim =
        Victim { rig, random: seed, promised: BTreeSet::new(), posted: 0, alert_again: true, hit: BTreeMap::new() };
    for round in 1.. {
        assert!(round < ends * 3, "too few of {round} rounds hit a run: {:?}", victim.hit);
        victim.rig.fragment().await;
        let held = HeldDefrags::start_for(&victim.rig.cluster, HELD).await.unwrap();
        victim.alert_again = round % 2 == 0;
        let defragd = victim.start().await;
        victim.post(&defragd).await;
        defragd.kill().await.unwrap();
        // A run survives some kills, and gives up after five starts: both must be seen.
        for _ in 0..4 + random(&mut victim.random) % 4 {
            victim.end_once().await;
        }
        // Left to itself, it ends the work: one that gave up is tried again after a minute.
        let defragd = victim.start().await;
        until("the request to be served", MINUTE * 7, || async {
            let clusters = defragd.json("/api/v1/clusters").await?;
            let cluster = &clusters["clusters"][0];
            let waits = ["active_run", "queued_run", "retry_at"].iter().any(|key| !cluster[*key].is_null());
            anyhow::ensure!(!waits, "{cluster}");
            Ok(())
        })
        .await
        .unwrap();
        drop(held);
        victim.rig.assert_tight().await;
        victim.check_journal_of(&defragd).await;
        let in_order = victim.hit.get(IN_ORDER).copied().unwrap_or_default();
        let killed = victim.in_a_run() - in_order;
        if victim.in_a_run() >= ends && in_order.min(killed) >= of_each && victim.hit.contains_key(IN_A_DEFRAG) {
            break;
        }
    }
    let timeline = watch.stop().await;
    assert_eq!(timeline.max_in_flight(), 1, "two members at once, by their own metrics");
    let logs = logs(&victim.rig.cluster);
    assert!(logs.iter().all(|log| log.most_at_once == 1 && log.failed == 0), "{logs:?}");
    let outcomes = journal(&victim.rig).iter().fold(BTreeMap::<String, u32>::new(), |mut all, run| {
        *all.entry(run["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        all
    });
    eprintln!(
        "etcd {version}, seed {seed}: ended {:?}; {} requests promised; outcomes {outcomes:?}; Defragments {:?}",
        victim.hit,
        victim.promised.len(),
        logs.iter().map(|log| log.started).collect::<Vec<_>>(),
    );
}

impl Victim {
    async fn check_journal_of(&self, defragd: &Defragd) {
        defragd.terminate(MINUTE).await.unwrap();
        self.check_journal();
    }
}
