//! Keeps the journal small: deletes old runs, returns their space to the file system, and checks the file's integrity.
//! All of it happens in the background, in steps that hold the journal for milliseconds.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{IMMEDIATE, schema::MISMATCHED};
use crate::core::history::{Entry, Outcome};

/// Runs deleted in one step.
const RUNS_A_STEP: i64 = 500;
/// How long everything else waits for others that use the file; rusqlite's own value.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages returned to the file system in one step.
const PAGES_A_STEP: u32 = 500;
/// A journal above its size limit is reduced to this part of the limit, so that the next run does not trigger it again.
const CUT_TO: f64 = 0.9;
/// A client may still request a more recent run by its number.
const COLLAPSE_AFTER: Duration = Duration::from_mins(10);
/// Pauses and resumes kept for each cluster although a later resume has ended them.
const ORDERS_OF_A_CLUSTER: i64 = 1_000;

/// How much history the journal keeps. The newest run of each cluster, all open runs and those after which the members
/// differed are always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Older runs are deleted.
    pub age: Duration,
    pub runs_of_a_cluster: u32,
    /// Bytes. The oldest runs of a larger journal are deleted.
    pub size: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_hours(365 * 24), runs_of_a_cluster: 10_000, size: 256 << 20 }
    }
}

/// Deletes one step's runs and returns their number; 0 when nothing is left to delete.
pub(super) fn prune(
    connection: &mut Connection,
    retention: &Retention,
    now: Timestamp,
    size: u64,
) -> rusqlite::Result<usize> {
    let transaction = connection.transaction_with_behavior(IMMEDIATE)?;
    let mut gone = by_age(&transaction, retention, now)?;
    if gone == 0 {
        gone = by_number(&transaction, retention)?;
    }
    if gone == 0 && size > retention.size {
        gone = oldest(&transaction)?;
    }
    orders(&transaction)?;
    transaction.commit()?;
    Ok(gone)
}

/// Bytes in use.
pub(super) fn used(connection: &Connection) -> rusqlite::Result<u64> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, u32>(0).map(u64::from));
    Ok((number("page_count")? - number("freelist_count")?) * number("page_size")?)
}

/// The size at which the reduction ends.
pub(super) fn cut_size(retention: &Retention) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a size")]
    #[expect(clippy::cast_precision_loss, reason = "sizes stay below 2^52")]
    let size = (retention.size as f64 * CUT_TO) as u64;
    size
}

/// Returns free pages to the file system; `true` if more are left. The file shrinks at the next complete [`checkpoint`].
pub(super) fn shrink(connection: &Connection) -> rusqlite::Result<bool> {
    connection.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_A_STEP})"))?;
    connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, u32>(0)).map(|left| left > 0)
}

/// Moves the write-ahead log into the file and empties it; `false` if an open reader still needs a part of it.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    // Does not wait for the readers: every write would wait with it.
    connection.busy_timeout(Duration::ZERO)?;
    let busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    busy.map(|busy| !busy)
}

/// Checks only the oldest runs: numbers are assigned in order.
fn by_age(transaction: &Transaction<'_>, retention: &Retention, now: Timestamp) -> rusqlite::Result<usize> {
    let Ok(limit) = now.checked_sub(retention.age) else { return Ok(0) };
    transaction.execute(&format!("CREATE TEMP TABLE gone AS {} LIMIT {RUNS_A_STEP}", may_go("1")), [])?;
    transaction.execute(
        "DELETE FROM gone WHERE (SELECT max(at) FROM entry WHERE run = id) >= ?1",
        params![limit.to_string()],
    )?;
    delete_chosen(transaction)
}

fn by_number(transaction: &Transaction<'_>, retention: &Retention) -> rusqlite::Result<usize> {
    let clusters: Vec<String> = transaction
        .prepare("SELECT DISTINCT cluster FROM run")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut gone = 0;
    for cluster in clusters {
        let query = "SELECT id FROM run WHERE cluster = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2";
        let first_too_many: Option<i64> =
            transaction.query_row(query, params![cluster, retention.runs_of_a_cluster], |row| row.get(0)).optional()?;
        if let Some(last) = first_too_many {
            gone += delete(transaction, "cluster = (SELECT cluster FROM run WHERE id = ?1) AND id <= ?1", last)?;
        }
    }
    Ok(gone)
}

fn oldest(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    delete(transaction, "?1 = ?1", 0)
}

/// Selects the runs that may be deleted, oldest first.
fn may_go(which: &str) -> String {
    format!(
        "SELECT id FROM run WHERE {which} AND open = 0 AND EXISTS \
         (SELECT 1 FROM run AS later WHERE later.cluster = run.cluster AND later.id > run.id) AND id NOT IN \
         (SELECT run FROM entry WHERE {MISMATCHED}) ORDER BY id"
    )
}

fn delete(transaction: &Transaction<'_>, which: &str, parameter: i64) -> rusqlite::Result<usize> {
    let chosen = format!("CREATE TEMP TABLE gone AS {} LIMIT {RUNS_A_STEP}", may_go(which));
    transaction.execute(&chosen, params![parameter])?;
    delete_chosen(transaction)
}

fn delete_chosen(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    transaction.execute("DELETE FROM entry WHERE run IN (SELECT id FROM gone)", [])?;
    let gone = transaction.execute("DELETE FROM run WHERE id IN (SELECT id FROM gone)", [])?;
    transaction.execute("DROP TABLE gone", [])?;
    Ok(gone)
}

/// A pause before a resume has no effect any more.
fn orders(transaction: &Transaction<'_>) -> rusqlite::Result<usize> {
    let statement = "DELETE FROM person_order WHERE seq < (SELECT max(seq) FROM person_order AS later \
                     WHERE later.cluster = person_order.cluster AND json_extract(later.body, '$.order') = 'resume') \
                     AND (SELECT count(*) FROM person_order AS later WHERE later.cluster = person_order.cluster \
                          AND later.seq > person_order.seq) >= ?1";
    transaction.execute(statement, params![ORDERS_OF_A_CLUSTER])
}

/// Deletes the runs before this one that had the same result, and returns the entry that counts them.
pub(super) fn collapse(
    transaction: &Transaction<'_>,
    run: i64,
    outcome: &Outcome,
    now: Timestamp,
) -> rusqlite::Result<Option<Entry>> {
    if !matches!(outcome, Outcome::Observed { .. } | Outcome::NothingToDo | Outcome::Refused { .. }) {
        return Ok(None);
    }
    let query = "SELECT id FROM run WHERE cluster = (SELECT cluster FROM run WHERE id = ?1) AND id < ?1 AND open = 0 \
                 ORDER BY id DESC LIMIT 1";
    let (mut all, mut first) = (0, None);
    loop {
        let before: Option<i64> = transaction.query_row(query, params![run], |row| row.get(0)).optional()?;
        let Some(before) = before else { break };
        let Some((times, since)) = same_result(transaction, before, outcome, now)? else { break };
        transaction.execute("DELETE FROM entry WHERE run = ?1", params![before])?;
        transaction.execute("DELETE FROM run WHERE id = ?1", params![before])?;
        (all, first) = (all + times, Some(since));
    }
    Ok(first.map(|since| Entry::Repeats { times: all, since }))
}

/// How many runs this one stands for and when the first was accepted, if it had this result long enough ago.
fn same_result(
    transaction: &Transaction<'_>,
    run: i64,
    outcome: &Outcome,
    now: Timestamp,
) -> rusqlite::Result<Option<(u32, Timestamp)>> {
    let mut entries = transaction.prepare_cached("SELECT at, body FROM entry WHERE run = ?1 ORDER BY seq")?;
    let entries: Vec<(String, String)> =
        entries.query_map(params![run], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let (mut ended, mut same, mut times, mut since) = (None, false, 1, None);
    for (at, body) in &entries {
        // An entry that cannot be read keeps its run.
        let (Ok(entry), Ok(at)) = (serde_json::from_str(body), at.parse::<Timestamp>()) else { return Ok(None) };
        match entry {
            Entry::Accepted(_) => since = Some(at),
            Entry::Repeats { times: more, since: first } => (times, since) = (times + more, Some(first)),
            // What was found out about the data is kept.
            Entry::Verified(_) => return Ok(None),
            Entry::Finished(found) => (ended, same) = (Some(at), is_same(&found, outcome)),
            _ => {}
        }
    }
    let long_ago = ended.is_some_and(|ended| now.duration_since(ended).unsigned_abs() >= COLLAPSE_AFTER);
    Ok(since.filter(|_| same && long_ago).map(|since| (times, since)))
}

/// Refusals are the same if their reasons have the same code: sizes and times in them differ.
fn is_same(a: &Outcome, b: &Outcome) -> bool {
    match (a, b) {
        (Outcome::Refused { reason: a }, Outcome::Refused { reason: b }) => a.label() == b.label(),
        (a, b) => a == b,
    }
}

/// The nice value at which a thread runs when the processors have nothing else to do.
const LOWEST_PRIORITY: i32 = 19;

/// [`damage`], which keeps a processor busy for half a second on a large file: right after the start, when nothing waits for it.
pub(super) fn damage_at_leisure(path: PathBuf) -> Option<String> {
    // In a thread of its own, because a priority cannot be raised again; where it may not be lowered, it stays.
    let check = std::thread::spawn(move || {
        let _ = rustix::process::nice(LOWEST_PRIORITY);
        damage(&path)
    });
    check.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// What is wrong with the file, if anything. Reads all of it, which takes seconds for a large one.
fn damage(path: &Path) -> Option<String> {
    let look = || {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    };
    match look() {
        Ok(verdict) if verdict == "ok" => None,
        Ok(verdict) => Some(verdict),
        Err(error) => Some(error.to_string()),
    }
}
