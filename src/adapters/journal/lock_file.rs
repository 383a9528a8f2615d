//! The file that is locked while a process has the journal open for writing, and where that process serves.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::FileExt,
    path::Path,
};

use super::{SqliteJournal, open_error, own_file};
use crate::ports::journal::JournalError;

const LOCK_NAME: &str = "journal.lock";

impl SqliteJournal {
    /// Whether a process holds the journal of this directory for writing.
    pub fn is_held(data_dir: &Path) -> bool {
        let file = OpenOptions::new().write(true).open(data_dir.join(LOCK_NAME));
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// Writes into the lock file where the process that holds this journal serves, for commands on the same machine.
    pub fn publish_url(&self, url: &str) -> std::io::Result<()> {
        self.lock.as_ref().map_or(Ok(()), |lock| lock.write_all_at(url.as_bytes(), 0))
    }

    /// Where the process that holds the journal of this directory serves, if it is a server.
    pub fn url_of_holder(data_dir: &Path) -> Option<String> {
        let url = std::fs::read_to_string(data_dir.join(LOCK_NAME)).ok().filter(|url| !url.is_empty())?;
        Self::is_held(data_dir).then_some(url)
    }
}

pub(super) fn take(data_dir: &Path, journal: &Path) -> Result<File, JournalError> {
    let path = data_dir.join(LOCK_NAME);
    let file = own_file(&path).map_err(|error| open_error(&path, &error))?;
    match file.try_lock() {
        // The last holder's URL.
        Ok(()) => file.set_len(0).map(|()| file).map_err(|error| open_error(&path, &error)),
        Err(TryLockError::WouldBlock) => Err(JournalError::InUse { path: journal.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(open_error(&path, &error)),
    }
}
