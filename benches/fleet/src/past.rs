//! A journal at its size limit: years of runs of every cluster, as defragd would have recorded them.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use bytesize::ByteSize;
use defragd_core::{
    cluster::MemberId,
    history::{AlertKey, Entry, Intent, MemberEnd, MemberResult, Outcome, Request, Sizes, Trigger},
    policy::{Mode, Need},
};
use fleet::Plan;
use jiff::Timestamp;
use rusqlite::{Connection, params};

use crate::{start::serve, subject::Rig};

/// Above this part of its limit, a journal is not filled, so that no start begins with deleting runs.
const FILLED: f64 = 0.98;
/// From the first run to the last.
const SPAN: Duration = Duration::from_hours(360 * 24);

/// Has this binary make a journal in `data_dir`, and fills it up to this limit. Returns how many runs there are.
pub(crate) async fn make(binary: &Path, rig: &Rig, data_dir: &Path, mib: u64) -> Result<usize> {
    serve(binary, rig, data_dir).await?.terminate(Duration::from_mins(1)).await?;
    let runs = fill(&data_dir.join("journal.db"), rig.plan.clusters, mib << 20)?;
    eprintln!("the journal has {runs} runs");
    Ok(runs)
}

/// Fills the journal in this file, which defragd has made, up to its limit in bytes. Every cluster gets the same runs, in
/// turn: one in mode `observe`, and one that defragments three members. Returns how many runs there are.
fn fill(file: &Path, clusters: usize, limit: u64) -> Result<usize> {
    let mut journal = Connection::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    journal.pragma_update(None, "synchronous", "OFF")?;
    let begin = Timestamp::now().checked_sub(SPAN)?;
    round(&mut journal, clusters, begin)?;
    let size = |journal: &Connection| -> rusqlite::Result<u64> {
        let number = |pragma: &str| journal.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0));
        Ok(u64::from(number("page_count")?) * u64::from(number("page_size")?))
    };
    let first = size(&journal)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some hundred rounds")]
    let rounds = (limit as f64 * FILLED / first as f64) as u32;
    for number in 1..rounds {
        round(&mut journal, clusters, begin.checked_add(SPAN * number / rounds)?)?;
    }
    journal.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let runs: u32 = journal.query_row("SELECT count(*) FROM run", [], |row| row.get(0))?;
    Ok(usize::try_from(runs)?)
}

/// Two runs of each cluster, which began at this time.
fn round(journal: &mut Connection, clusters: usize, at: Timestamp) -> Result<()> {
    let transaction = journal.transaction()?;
    {
        let mut run = transaction.prepare("INSERT INTO run (cluster, open) VALUES (?1, 0)")?;
        let mut entry = transaction.prepare("INSERT INTO entry (run, at, body) VALUES (?1, ?2, ?3)")?;
        for entries in [observed(at), defragmented()] {
            for cluster in (0..clusters).map(Plan::name) {
                let id = run.insert(params![cluster])?;
                for body in std::iter::once(&accepted(cluster)).chain(&entries) {
                    entry.execute(params![id, at.to_string(), serde_json::to_string(body)?])?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn accepted(cluster: String) -> Entry {
    let labels = [("alertname", "EtcdFragmented"), ("severity", "warning"), ("etcd_cluster", &cluster)];
    let labels: Vec<_> = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
    let key = AlertKey::new("c0ffee00c0ffee00".to_owned(), "2026-01-01T00:00:00Z");
    let alert = key.described(labels.iter().map(|(label, value)| (label, value)), "etcd's files are fragmented");
    Entry::Accepted(Request { cluster, trigger: Trigger::Alert, alerts: vec![alert], members: Vec::new() })
}

fn observed(since: Timestamp) -> Vec<Entry> {
    let members = ["etcd-1", "etcd-2", "etcd-0"].map(str::to_owned).to_vec();
    vec![
        Entry::Started { mode: Mode::Observe, term: None, compares: false },
        Entry::Finished(Outcome::Observed { members, outside_window: false }),
        Entry::Repeats { times: 167, since },
    ]
}

fn defragmented() -> Vec<Entry> {
    let mut entries = vec![Entry::Started { mode: Mode::Enforce, term: None, compares: false }];
    let before = Sizes { db_size: ByteSize(4_000_000_007), db_size_in_use: ByteSize(1_000_000_007) };
    for number in 0..3 {
        let intent = Intent {
            member_id: MemberId(0x8e9e_05c5_2164_694d ^ number),
            member: format!("etcd-{number}"),
            is_leader: number == 2,
            need: Need::Fragmented,
            before,
            expected: Some(Duration::from_secs(18)),
            non_blocking: false,
        };
        entries.push(Entry::Intent(intent.clone()));
        let after = Sizes { db_size: before.db_size_in_use, ..before };
        let end = MemberEnd::Defragmented { after, took: Duration::from_secs(20), unavailable: None };
        entries.push(Entry::Result(MemberResult { intent, end }));
    }
    entries.push(Entry::Finished(Outcome::Succeeded));
    entries
}
