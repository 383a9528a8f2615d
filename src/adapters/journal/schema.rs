//! The tables, and their version.

use std::path::Path;

use rusqlite::Connection;

use super::open_error;
use crate::ports::journal::JournalError;

/// Written to SQLite's `user_version`. Raise it with every change of the tables or of the entries' JSON.
const VERSION: i64 = 6;

/// The size to which the write-ahead log's file is truncated after a checkpoint.
const LOG_BYTES: u32 = 8 << 20;

const TABLES: &str = "
    CREATE TABLE run (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        cluster TEXT    NOT NULL,
        open    INTEGER NOT NULL DEFAULT 1
    ) STRICT;
    CREATE INDEX run_open ON run (open) WHERE open = 1;
    CREATE TABLE entry (
        seq  INTEGER PRIMARY KEY AUTOINCREMENT,
        run  INTEGER NOT NULL REFERENCES run (id),
        at   TEXT    NOT NULL,
        body TEXT    NOT NULL
    ) STRICT;
    CREATE INDEX entry_run ON entry (run);
    CREATE INDEX run_cluster ON run (cluster, id);
    CREATE TABLE person_order (
        seq     INTEGER PRIMARY KEY AUTOINCREMENT,
        cluster TEXT NOT NULL,
        at      TEXT NOT NULL,
        body    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX person_order_cluster ON person_order (cluster);
";

/// What each version added to the one before it, from version 2 on. Version 3 has entries of kind `repeats`, and
/// returns space (`auto_vacuum`). Version 4 has no outcome `elsewhere`. Version 5 has requests by schedules, and
/// records since when each schedule applies; and entries of kind `verified` and the outcome `mismatched`, which is
/// searched in all runs. Version 6 has labels and summaries of alerts, and records that alerts of ended runs are
/// resolved.
const ADDED: [&str; 5] = [
    "
    CREATE TABLE inherited (
        cluster TEXT PRIMARY KEY,
        at      TEXT NOT NULL,
        body    TEXT NOT NULL
    ) STRICT;
",
    "",
    "
    UPDATE entry SET body = json_object('kind', 'finished', 'outcome', 'stopped', 'reason', json_object(
            'code', 'handed_over', 'holder', body ->> 'holder', 'run', body ->> 'holders_run'))
        WHERE body ->> 'outcome' = 'elsewhere' AND body ->> 'holders_run' IS NOT NULL;
    UPDATE entry SET body = json_object('kind', 'finished', 'outcome', 'refused', 'reason', json_object(
            'code', 'not_forwarded', 'holder', body ->> 'holder', 'detail', ifnull(body ->> 'detail', body ->> 'ended')))
        WHERE body ->> 'outcome' = 'elsewhere';
",
    "
    CREATE TABLE schedule (
        cluster TEXT PRIMARY KEY,
        at      TEXT NOT NULL,
        body    TEXT NOT NULL
    ) STRICT;
    CREATE INDEX entry_mismatched ON entry (run)
        WHERE CASE WHEN json_valid(body) THEN body ->> 'outcome' = 'mismatched' END;
",
    "",
];

/// The ends of runs after which the members differed, as in the index `entry_mismatched`: only this exact text uses the
/// index. An entry that is not JSON must not make the query fail.
pub(super) const MISMATCHED: &str = "CASE WHEN json_valid(body) THEN body ->> 'outcome' = 'mismatched' END";

/// Creates the tables of a new journal, and checks those of an old one.
pub(super) fn prepare(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    // Takes effect only before the first table exists; `adopt_vacuum` converts older journals.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed)?;
    // Readers (`defragd runs`) continue while we write; FULL makes each commit survive a power cut.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    let found = version(connection, path)?;
    if found < VERSION {
        let first = if found == 0 { TABLES } else { "" };
        let had = usize::try_from(found.saturating_sub(1)).unwrap_or(0);
        let added = ADDED.get(had..).unwrap_or_default().concat();
        // All or nothing: a crash in the middle leaves the version as it was.
        let script = format!("BEGIN IMMEDIATE; {first} {added} PRAGMA user_version = {VERSION}; COMMIT;");
        connection.execute_batch(&script).map_err(failed)?;
    }
    check(connection, path)
}

/// Rewrites a journal from before version 3 so that it can return space.
pub(super) fn adopt_vacuum(connection: &Connection) -> rusqlite::Result<()> {
    let is_incremental = connection.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0))? == 2;
    if is_incremental { Ok(()) } else { connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; VACUUM") }
}

/// Rejects a file that is not a journal, or is newer than this program. [`super::SqliteJournal::verify`] checks the
/// rest, which takes seconds for a large file.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let found = version(connection, path)?;
    if found > VERSION {
        return Err(JournalError::Newer { path: path.display().to_string(), found, known: VERSION });
    }
    Ok(())
}

/// Writes the existing version again: all the way to the disk, and without a trace.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", VERSION)
}

fn version(connection: &Connection, path: &Path) -> Result<i64, JournalError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| open_error(path, &error))
}

#[cfg(test)]
mod tests {
    use crate::core::{
        history::{Entry, RunId},
        reason::Reason,
    };

    /// Journals and the notes beside locks hold entries under names that have changed since.
    #[test]
    fn entries_under_their_earlier_names_are_read() {
        let entry = r#"{"kind":"handed_over","holder":{"name":"one"},"holders_run":7}"#;
        let entry: Entry = serde_json::from_str(entry).expect("an entry");
        assert!(matches!(entry, Entry::Forwarded(to) if to.holder.name == "one" && to.run == RunId(7)));
        let reason = |json: &str| serde_json::from_str::<Reason>(json).expect("a reason").label();
        assert_eq!(reason(r#"{"code":"handed_over","holder":"one","run":7}"#), "forwarded");
        assert_eq!(reason(r#"{"code":"needs_person","member":"m1","detail":"no space"}"#), "needs_operator");
        assert_eq!(reason(r#"{"code":"out_of_step"}"#), "internal_error");
    }
}
