//! The tables, and the version that they have.

use std::path::Path;

use rusqlite::Connection;

use super::open_error;
use crate::ports::journal::JournalError;

/// Written to SQLite's `user_version`. Raise it with every change of the tables or of the entries' JSON.
const VERSION: i64 = 2;

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

/// What each version added to the one before it, from version 2 on.
const ADDED: [&str; 1] = ["
    CREATE TABLE inherited (
        cluster TEXT PRIMARY KEY,
        at      TEXT NOT NULL,
        body    TEXT NOT NULL
    ) STRICT;
"];

/// Makes the tables of a new journal, and checks those of an old one.
pub(super) fn prepare(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let failed = |error: rusqlite::Error| open_error(path, &error);
    // Readers (`defragd runs`) go on while we write; FULL makes each commit survive a power cut.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
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

/// Refuses a journal that is damaged or newer than this program.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<(), JournalError> {
    let found = version(connection, path)?;
    if found > VERSION {
        return Err(JournalError::Newer { path: path.display().to_string(), found, known: VERSION });
    }
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| open_error(path, &error))?;
    if verdict != "ok" {
        return Err(open_error(path, &format!("it is damaged ({verdict}); move it away to begin a new one")));
    }
    Ok(())
}

/// Writes the version that is there already: all the way to the disk, and without a trace.
pub(super) fn touch(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "user_version", VERSION)
}

fn version(connection: &Connection, path: &Path) -> Result<i64, JournalError> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| open_error(path, &error))
}
