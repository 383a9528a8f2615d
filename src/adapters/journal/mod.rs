//! [`Journal`] in an SQLite file in the data directory.
//!
//! Every write is one transaction with full synchronisation: when it returns, it is on the disk. A lock file keeps a
//! second process out, so that two defragd processes never use one data directory at the same time.

mod lock_file;
mod retention;
mod schema;

use std::{
    fs::{DirBuilder, File, OpenOptions},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::sync::Mutex;

pub use self::retention::Retention;
use crate::{
    core::{
        history::{Entry, Record, Request, RunId, RunView},
        note::SuccessionNote,
        order::{Order, OrderRecord},
    },
    ports::{
        clock::Clock,
        journal::{Journal, JournalError},
    },
};
use schema::MISMATCHED;

/// The name of the file in the data directory.
pub const FILE_NAME: &str = "journal.db";
/// Takes the write lock at once: with a read first, SQLite would fail instead of waiting for another writer, such as
/// an operator's sqlite3 shell.
const IMMEDIATE: TransactionBehavior = TransactionBehavior::Immediate;
/// Of the files and the directory, if we create them: a client that can write them decides what we believe of the past.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// The pause between two steps of [`SqliteJournal::prune`], in which runs can use the journal.
const STEP_INTERVAL: Duration = Duration::from_millis(20);
/// An open reader, such as a backup, is waited for so often and so long; after that, the next deletion shrinks the file.
const READER_WAITS: (u32, Duration) = (60, Duration::from_secs(1));

/// What went wrong in a read or a write.
type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
pub struct SqliteJournal {
    connection: Arc<Mutex<Connection>>,
    clock: Arc<dyn Clock>,
    /// What is wrong with the file.
    damage: Arc<OnceLock<String>>,
    /// `None` in memory.
    path: Option<PathBuf>,
    // The lock lasts as long as the file is open.
    lock: Option<Arc<File>>,
}

impl SqliteJournal {
    /// Opens the journal for writing, and creates it and the directory if they do not exist.
    pub fn open(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let path = data_dir.join(FILE_NAME);
        let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(data_dir);
        made.map_err(|error| open_error(data_dir, &error))?;
        let lock = lock_file::take(data_dir, &path)?;
        // SQLite would create it by the umask; its other files get the mode of this one.
        own_file(&path).map_err(|error| open_error(&path, &error))?;
        let connection = Connection::open(&path).map_err(|error| open_error(&path, &error))?;
        schema::prepare(&connection, &path)?;
        Ok(Self::over(connection, clock, Some(path), Some(lock)))
    }

    /// A journal that ends with the process, for one that only exports metrics.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self, JournalError> {
        let path = Path::new(":memory:");
        let connection = Connection::open_in_memory().map_err(|error| open_error(path, &error))?;
        schema::prepare(&connection, path)?;
        Ok(Self::over(connection, clock, None, None))
    }

    /// Opens an existing journal for reading, also while another process writes it.
    pub fn open_read_only(data_dir: &Path) -> Result<Self, JournalError> {
        let path = data_dir.join(FILE_NAME);
        // Not SQLite's own read-only mode: a reader of a write-ahead log must be able to create its index.
        if !path.exists() {
            return Err(open_error(&path, &"there is no journal; pass --data-dir"));
        }
        let connection = Connection::open(&path).map_err(|error| open_error(&path, &error))?;
        schema::check(&connection, &path)?;
        connection.pragma_update(None, "query_only", true).map_err(|error| open_error(&path, &error))?;
        Ok(Self::over(connection, Arc::new(crate::adapters::clock::SystemClock), Some(path), None))
    }

    fn over(connection: Connection, clock: Arc<dyn Clock>, path: Option<PathBuf>, lock: Option<File>) -> Self {
        let connection = Arc::new(Mutex::new(connection));
        Self { connection, clock, damage: Arc::default(), path, lock: lock.map(Arc::new) }
    }

    /// Checks the file's integrity. A damaged journal accepts no further writes.
    pub async fn verify(&self) -> Result<(), JournalError> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        let check = tokio::task::spawn_blocking(move || retention::damage_at_leisure(path));
        let found = check.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        found.map_or(Ok(()), |detail| Err(self.damaged(self.damage.get_or_init(|| detail))))
    }

    fn damaged(&self, detail: &str) -> JournalError {
        let path = self.path.as_deref().unwrap_or(Path::new(":memory:")).display();
        JournalError::Write(format!(
            "{path} is damaged ({detail}); stop defragd and move the file away to start a new one"
        ))
    }

    /// Deletes runs past their retention, returns the space to the file system, and returns how many were deleted.
    pub async fn prune(&self, retention: Retention) -> Result<usize, JournalError> {
        let (mut gone, mut cutting) = (0, false);
        loop {
            let now = self.clock.now();
            let step = self.blocking(move |connection| -> rusqlite::Result<_> {
                let size = retention::used(connection)?;
                cutting = size > if cutting { retention::cut_size(&retention) } else { retention.size };
                let limits = Retention { size: if cutting { 0 } else { retention.size }, ..retention };
                let gone = retention::prune(connection, &limits, now, size)?;
                Ok((gone, cutting))
            });
            let (step, still_cutting) = step.await.map_err(write_error)?;
            (gone, cutting) = (gone + step, still_cutting);
            if step == 0 {
                break;
            }
            tokio::time::sleep(STEP_INTERVAL).await;
        }
        self.blocking(|connection| schema::adopt_vacuum(connection)).await.map_err(write_error)?;
        while self.blocking(|connection| retention::shrink(connection)).await.map_err(write_error)? {
            tokio::time::sleep(STEP_INTERVAL).await;
        }
        for _ in 0..READER_WAITS.0 {
            if self.blocking(|connection| retention::checkpoint(connection)).await.map_err(write_error)? {
                break;
            }
            tokio::time::sleep(READER_WAITS.1).await;
        }
        Ok(gone)
    }

    /// Runs `work` on a thread that may block: a synchronised write takes milliseconds, or seconds on a
    /// failing disk.
    async fn blocking<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> T + Send + 'static,
    {
        // Waits here, in turn, and not in a thread for each.
        let mut connection = Arc::clone(&self.connection).lock_owned().await;
        let work = move || work(&mut connection);
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    async fn reading<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    {
        self.blocking(work).await.map_err(read_error)
    }

    /// Fails if the file is damaged.
    async fn writing<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Failure> + Send + 'static,
    {
        match self.damage.get() {
            Some(detail) => Err(self.damaged(detail)),
            None => self.blocking(work).await.map_err(write_error),
        }
    }

    async fn views<P>(&self, filter: &str, parameters: P) -> Result<Vec<RunView>, JournalError>
    where
        P: rusqlite::Params + Send + 'static,
    {
        self.matching(filter, parameters).await.map(RunView::fold)
    }

    async fn matching<P>(&self, filter: &str, parameters: P) -> Result<Vec<Record>, JournalError>
    where
        P: rusqlite::Params + Send + 'static,
    {
        let query = format!(
            "SELECT run, at, body, (SELECT open FROM run WHERE id = run) FROM entry WHERE {filter} ORDER BY seq"
        );
        self.reading(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let rows = statement.query_map(parameters, |row| {
                Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, bool>(3)?))
            })?;
            let mut records = Vec::new();
            for row in rows {
                let (run, at, body, open) = row?;
                match record(run, &at, &body) {
                    Ok(record) => records.push(record),
                    // Unreadable history of a newer version must not stop everything; an unreadable open run must.
                    Err(error) if !open => {
                        tracing::warn!(run, error = %read_error(error), "leaving out an entry of the journal");
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(records)
        })
        .await
    }
}

impl Journal for SqliteJournal {
    async fn accept(&self, request: Request) -> Result<RunId, JournalError> {
        let at = self.clock.now().to_string();
        self.writing(move |connection| {
            let transaction = connection.transaction_with_behavior(IMMEDIATE)?;
            transaction.execute("INSERT INTO run (cluster) VALUES (?1)", params![request.cluster])?;
            let run = RunId(transaction.last_insert_rowid());
            insert(&transaction, run, &at, &Entry::Accepted(request))?;
            transaction.commit()?;
            Ok(run)
        })
        .await
    }

    async fn append(&self, run: RunId, entry: Entry) -> Result<(), JournalError> {
        let at = self.clock.now();
        self.writing(move |connection| {
            let transaction = connection.transaction_with_behavior(IMMEDIATE)?;
            insert(&transaction, run, &at.to_string(), &entry)?;
            if let Entry::Finished(outcome) = &entry {
                transaction.execute("UPDATE run SET open = 0 WHERE id = ?1", params![run.0])?;
                if let Some(repeats) = retention::collapse(&transaction, run.0, outcome, at)? {
                    insert(&transaction, run, &at.to_string(), &repeats)?;
                }
            }
            Ok(transaction.commit()?)
        })
        .await
    }

    async fn runs(&self, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.views("run IN (SELECT id FROM run ORDER BY id DESC LIMIT ?1)", (limit,)).await
    }

    async fn runs_of(&self, cluster: &str, limit: usize) -> Result<Vec<RunView>, JournalError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let filter = format!(
            "run IN (SELECT id FROM (SELECT id FROM run WHERE cluster = ?1 ORDER BY id DESC LIMIT ?2) UNION \
             SELECT max(id) FROM run WHERE cluster = ?1 AND id IN (SELECT run FROM entry WHERE {MISMATCHED}))"
        );
        self.views(&filter, (cluster.to_owned(), limit)).await
    }

    async fn order(&self, cluster: &str, order: Order) -> Result<(), JournalError> {
        let (cluster, at) = (cluster.to_owned(), self.clock.now().to_string());
        self.writing(move |connection| {
            let body = serde_json::to_string(&order)?;
            let statement = "INSERT INTO person_order (cluster, at, body) VALUES (?1, ?2, ?3)";
            connection.execute(statement, params![cluster, at, body])?;
            Ok(())
        })
        .await
    }

    async fn orders(&self, cluster: &str) -> Result<Vec<OrderRecord>, JournalError> {
        let cluster = cluster.to_owned();
        self.reading(move |connection| {
            let query = "SELECT at, body FROM person_order WHERE cluster = ?1 ORDER BY seq";
            let mut statement = connection.prepare_cached(query)?;
            let rows =
                statement.query_map([&cluster], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let mut orders = Vec::new();
            for row in rows {
                let (at, body) = row?;
                let unreadable = |error: &dyn std::fmt::Display| format!("action {body}: {error}");
                let order: Order = serde_json::from_str(&body).map_err(|error| unreadable(&error))?;
                let at = at.parse().map_err(|error| unreadable(&error))?;
                orders.push(OrderRecord { cluster: cluster.clone(), at, order });
            }
            Ok(orders)
        })
        .await
    }

    async fn inherit(&self, cluster: &str, digest: SuccessionNote) -> Result<(), JournalError> {
        let (cluster, at) = (cluster.to_owned(), self.clock.now().to_string());
        self.writing(move |connection| {
            let body = serde_json::to_string(&digest)?;
            let statement = "INSERT INTO inherited (cluster, at, body) VALUES (?1, ?2, ?3) \
                             ON CONFLICT (cluster) DO UPDATE SET at = ?2, body = ?3";
            connection.execute(statement, params![cluster, at, body])?;
            Ok(())
        })
        .await
    }

    async fn inherited(&self, cluster: &str) -> Result<Option<SuccessionNote>, JournalError> {
        let cluster = cluster.to_owned();
        self.reading(move |connection| {
            let query = "SELECT body FROM inherited WHERE cluster = ?1";
            let found = connection.query_row(query, params![cluster], |row| row.get::<_, String>(0)).optional();
            let found = match found {
                // `defragd plan` reads journals of the previous version without migrating them.
                Err(error) if error.to_string().contains("no such table: inherited") => return Ok(None),
                found => found?,
            };
            let Some(body) = found else { return Ok(None) };
            let digest = SuccessionNote::read(&body);
            Ok(Some(digest.map_err(|error| format!("state left by other lock holders: {error}"))?))
        })
        .await
    }

    async fn scheduled_since(&self, cluster: &str, schedule: &str) -> Result<Timestamp, JournalError> {
        let (cluster, schedule, now) = (cluster.to_owned(), schedule.to_owned(), self.clock.now());
        self.writing(move |connection| {
            let query = "SELECT at FROM schedule WHERE cluster = ?1 AND body = ?2";
            let found =
                connection.query_row(query, params![cluster, schedule], |row| row.get::<_, String>(0)).optional();
            let since = found?.and_then(|at| at.parse::<Timestamp>().ok());
            if let Some(since) = since.filter(|since| *since <= now) {
                return Ok(since);
            }
            let statement = "INSERT INTO schedule (cluster, at, body) VALUES (?1, ?2, ?3) \
                             ON CONFLICT (cluster) DO UPDATE SET at = ?2, body = ?3";
            connection.execute(statement, params![cluster, now.to_string(), schedule])?;
            Ok(now)
        })
        .await
    }

    async fn run(&self, run: RunId) -> Result<Option<RunView>, JournalError> {
        Ok(self.views("run = ?1", (run.0,)).await?.pop())
    }

    async fn records(&self, run: RunId) -> Result<Vec<Record>, JournalError> {
        self.matching("run = ?1", (run.0,)).await
    }

    async fn open_runs(&self) -> Result<Vec<RunView>, JournalError> {
        self.views("run IN (SELECT id FROM run WHERE open = ?1)", (1,)).await
    }

    async fn writable(&self) -> Result<(), JournalError> {
        self.writing(|connection| Ok(schema::touch(connection)?)).await
    }
}

fn record(run: i64, at: &str, body: &str) -> Result<Record, Failure> {
    let unreadable = |what: &str, error: &dyn std::fmt::Display| {
        format!("run {run}: {what}: {error}; was it written by a newer defragd?")
    };
    let at = at.parse().map_err(|error| unreadable(at, &error))?;
    let entry: Entry = serde_json::from_str(body).map_err(|error| unreadable(body, &error))?;
    Ok(Record { run: RunId(run), at, entry })
}

fn insert(connection: &Connection, run: RunId, at: &str, entry: &Entry) -> Result<(), Failure> {
    let known = connection.query_row("SELECT 1 FROM run WHERE id = ?1", params![run.0], |_| Ok(())).optional()?;
    known.ok_or_else(|| format!("there is no run {run}"))?;
    let body = serde_json::to_string(entry)?;
    connection.execute("INSERT INTO entry (run, at, body) VALUES (?1, ?2, ?3)", params![run.0, at, body])?;
    Ok(())
}

/// The file, created if it does not exist. The mode of an existing one is its owner's choice.
fn own_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(path)
}

fn open_error(path: &Path, detail: &dyn std::fmt::Display) -> JournalError {
    JournalError::Open { path: path.display().to_string(), detail: detail.to_string() }
}

fn write_error(failure: impl Into<Failure>) -> JournalError {
    JournalError::Write(failure.into().to_string())
}

fn read_error(failure: impl Into<Failure>) -> JournalError {
    JournalError::Read(failure.into().to_string())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
