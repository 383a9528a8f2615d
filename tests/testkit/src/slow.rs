//! Makes defrags of small databases last, so that a test can hit the middle of one.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::process::Signal;

use crate::EtcdCluster;
use crate::process::Process;

/// How long a slowed member runs at a stretch. Ten times it is far below an election's second.
const STRETCH: Duration = Duration::from_millis(5);
/// How often a member is looked at for a defrag: a small one takes some fifty milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// Slows members down while they defragment, and only then: they are stopped (SIGSTOP) for most of each
/// short stretch of time. A slowed member behaves as one on an overloaded disk. Dropping it ends that.
#[derive(Debug)]
pub struct SlowDefrags {
    end: Arc<AtomicBool>,
    members: Vec<(Arc<Slowed>, Option<JoinHandle<()>>)>,
}

#[derive(Debug)]
struct Slowed {
    process: Arc<Mutex<Option<Process>>>,
    held: AtomicBool,
}

impl Slowed {
    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // It has just ended: nothing to slow.
            let _ = process.signal(signal);
        }
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }
}

impl SlowDefrags {
    /// Every member of the cluster, each also after a restart. Its defrags take `times` as long; 20 is far
    /// enough from an election, 100 is about half a second of silence at a time.
    pub fn start(cluster: &EtcdCluster, times: u32) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let members = cluster.members().iter().map(|member| {
            let slowed = Arc::new(Slowed { process: member.process_handle(), held: AtomicBool::new(false) });
            let (end, own, dir) = (Arc::clone(&end), Arc::clone(&slowed), member.data_dir().to_owned());
            (slowed, Some(thread::spawn(move || slow(&end, &own, &dir, times))))
        });
        Self { members: members.collect(), end }
    }

    /// Freezes a member for good, wherever it is in its defrag, until it is let go.
    pub fn hold(&self, index: usize) {
        let slowed = &self.members[index].0;
        slowed.held.store(true, Ordering::SeqCst);
        slowed.signal(Signal::STOP);
    }

    /// Lets a frozen member go on, as slowly as before.
    pub fn let_go(&self, index: usize) {
        let slowed = &self.members[index].0;
        slowed.held.store(false, Ordering::SeqCst);
        slowed.signal(Signal::CONT);
    }
}

impl Drop for SlowDefrags {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        for (slowed, thread) in &mut self.members {
            slowed.held.store(false, Ordering::SeqCst);
            if let Some(thread) = thread.take() {
                // It panics only if the test does.
                let _ = thread.join();
            }
            slowed.signal(Signal::CONT);
        }
    }
}

fn slow(end: &AtomicBool, member: &Slowed, dir: &Path, times: u32) {
    while !end.load(Ordering::SeqCst) {
        if member.is_held() {
            member.signal(Signal::STOP);
            thread::sleep(LOOK);
        } else if has_defrag_file(dir) {
            member.signal(Signal::STOP);
            thread::sleep(STRETCH * times.saturating_sub(1));
            if !member.is_held() {
                member.signal(Signal::CONT);
            }
            thread::sleep(STRETCH);
        } else {
            thread::sleep(LOOK);
        }
    }
}

/// A defrag copies the database to a temporary file beside it.
pub(crate) fn has_defrag_file(data_dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(data_dir.join("member/snap")) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("db.tmp"))
}
