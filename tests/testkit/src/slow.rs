//! Makes defrags of small databases last, so that a test can hit the middle of one.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::EtcdCluster;
use crate::process::{Process, processor_time};

/// How long a slowed member is stopped at a time: far below an election's second.
const SILENCE: Duration = Duration::from_millis(250);
/// How long it runs in between, at the least …
const STRETCH: Duration = Duration::from_millis(5);
/// … and on a busy machine until it has had this much of a processor …
const STRETCH_CPU: Duration = Duration::from_millis(3);
/// … but no longer than this, for it may be waiting for the disk.
const STRETCH_AT_MOST: Duration = Duration::from_millis(60);
/// How often a member is looked at for a defrag: a small one takes some fifty milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// Slows members down while they defragment, and only then: for a given time they are stopped (SIGSTOP) and let
/// run in turn, mostly stopped, and after it they run as they can, so that a busy machine adds little. A slowed
/// member behaves as one on an overloaded disk. Dropping it ends that.
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

    /// The processor time that its threads have had so far.
    fn cpu(&self) -> Option<Duration> {
        let pid = self.process.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.pid();
        processor_time(pid)
    }

    /// Lets it run for a stretch of its own progress.
    fn run_a_stretch(&self) {
        let (begun, before) = (Instant::now(), self.cpu());
        self.signal(Signal::CONT);
        thread::sleep(STRETCH);
        while begun.elapsed() < STRETCH_AT_MOST
            && let (Some(before), Some(now)) = (before, self.cpu())
            && now.saturating_sub(before) < STRETCH_CPU
        {
            thread::sleep(LOOK);
        }
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }
}

impl SlowDefrags {
    /// Every member of the cluster, each also after a restart. Each of its defrags takes about so much longer, if
    /// it has some ten milliseconds of work for each second of it.
    pub fn start(cluster: &EtcdCluster, by: Duration) -> Self {
        Self::with_silence(cluster, by, SILENCE)
    }

    /// As [`SlowDefrags::start`], but stopped for this long at a time: the work for a second is less then.
    pub fn with_silence(cluster: &EtcdCluster, by: Duration, silence: Duration) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let members = cluster.members().iter().map(|member| {
            let slowed = Arc::new(Slowed { process: member.process_handle(), held: AtomicBool::new(false) });
            let (end, own, dir) = (Arc::clone(&end), Arc::clone(&slowed), member.data_dir().to_owned());
            (slowed, Some(thread::spawn(move || slow(&end, &own, &dir, by, silence))))
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

fn slow(end: &AtomicBool, member: &Slowed, dir: &Path, by: Duration, silence: Duration) {
    let mut defrag_seen = None;
    while !end.load(Ordering::SeqCst) {
        if member.is_held() {
            member.signal(Signal::STOP);
        } else if !has_defrag_file(dir) {
            defrag_seen = None;
        } else if defrag_seen.get_or_insert_with(Instant::now).elapsed() < by {
            member.signal(Signal::STOP);
            thread::sleep(silence);
            if !member.is_held() {
                member.run_a_stretch();
            }
            continue;
        }
        thread::sleep(LOOK);
    }
}

/// A defrag copies the database to a temporary file beside it.
pub(crate) fn has_defrag_file(data_dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(data_dir.join("member/snap")) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("db.tmp"))
}
