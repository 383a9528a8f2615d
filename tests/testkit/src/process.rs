//! Child processes that end with the test, however the test ends.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::time::{Instant, sleep};

use crate::until;

/// The kernel tears down a process that has written gigabytes in seconds, on a busy machine in some more.
const KILLED: Duration = Duration::from_mins(1);

type Job = (Command, Sender<std::io::Result<Child>>);

/// The one thread that starts every child. Linux sends the parent-death signal when the *thread* that
/// started the child ends, and a test runtime's threads come and go: this one stays as long as the process.
static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, inbox) = channel::<Job>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            // Nobody waiting for the answer any more is no reason to stop serving the others.
            let _ = reply.send(command.spawn());
        }
    });
    Mutex::new(jobs)
});

/// A running child process with its output in a log file. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    /// Starts a program, appending its output to the log.
    pub(crate) fn spawn(
        name: &str,
        program: &Path,
        args: &[String],
        envs: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let out = File::options().create(true).append(true).open(log).context("failed to open the log")?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .envs(envs.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0);
        let (reply, answer) = channel();
        SPAWNER
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send((command, reply))
            .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
        let child = answer.recv()?.with_context(|| format!("failed to start {name} ({})", program.display()))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a child has a pid")?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, child: Mutex::new(child) })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&self) -> Result<Option<ExitStatus>> {
        Ok(self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?)
    }

    /// Fails with the end of the log if it has ended.
    pub(crate) fn ensure_running(&self) -> Result<()> {
        match self.exited()? {
            Some(status) => {
                bail!("{} ended ({status}); the end of {}:\n{}", self.name, self.log.display(), self.tail(20))
            }
            None => Ok(()),
        }
    }

    /// Tries until it is ready; fails at once, with the end of its log, if it ends instead.
    pub(crate) async fn ready<T, F, Fut>(&self, limit: Duration, mut attempt: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let what = format!("{} to be ready", self.name);
        let ready = until(&what, limit, || {
            let (running, tried) = (self.ensure_running(), attempt());
            async move {
                match running {
                    Ok(()) => tried.await.map(Ok),
                    Err(ended) => Ok(Err(ended)),
                }
            }
        });
        ready.await.with_context(|| self.tail(20))?
    }

    /// Sends a signal; one to a process that has ended is no error. Returns from SIGSTOP once every thread has stopped:
    /// until then, one of them may still answer.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // Under the lock and only while not reaped, so that the pid cannot be another process's by now.
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if child.try_wait()?.is_none() {
            kill_process(self.pid, signal).with_context(|| format!("failed to signal {}", self.name))?;
            if signal == Signal::STOP {
                // Leaves it waitable: a second stop, or a wait for its end, sees the same.
                let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                waitid(WaitId::Pid(self.pid), options).with_context(|| format!("{} does not stop", self.name))?;
            }
        }
        Ok(())
    }

    /// Waits until it has ended.
    pub(crate) async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("{} did not end within {limit:?}", self.name);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL, then waits.
    pub(crate) async fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(KILLED).await.map(drop)
    }

    /// SIGTERM, then waits; SIGKILL if that was not enough.
    pub(crate) async fn stop(&self, limit: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        if self.wait(limit).await.is_err() {
            self.kill().await?;
        }
        Ok(())
    }

    /// Where its output goes.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Both fail only if it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The last lines of a file, or why it cannot be read. Reads at most its last 64 KiB.
pub fn tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let size = fs::metadata(path)?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

/// The processor time that the threads which a process has now have had, to the nanosecond: `/proc/PID/stat` counts in
/// hundredths of a second. `None` once it is gone.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let spent = threads.filter_map(|thread| {
        // A thread may end meanwhile.
        let times = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    });
    Some(spent.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long for anything here, also on half a processor.
    const MINUTE: Duration = Duration::from_mins(1);

    fn sleeper(log: &Path) -> Process {
        Process::spawn("sleep", Path::new("/bin/sleep"), &["600".to_owned()], &[], log).unwrap()
    }

    #[tokio::test]
    async fn a_child_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (go, lives) = (dir.path().join("go"), dir.path().join("lives"));
        // It waits for a file and then makes another: a child that ended with the thread would not.
        let script =
            format!("until [ -e '{}' ]; do sleep 0.05; done; : > '{}'; exec sleep 600", go.display(), lives.display());
        let (child, thread) = thread::spawn({
            let log = dir.path().join("log");
            move || {
                let args = ["-c".to_owned(), script];
                let child = Process::spawn("sh", Path::new("/bin/sh"), &args, &[], &log).unwrap();
                (child, fs::read_link("/proc/thread-self").unwrap())
            }
        })
        .join()
        .unwrap();
        // The kernel sends what it has to send at a thread's end before it forgets the thread.
        until("the thread's end", MINUTE, || async {
            anyhow::ensure!(!Path::new("/proc").join(&thread).exists(), "it is there");
            Ok(())
        })
        .await
        .unwrap();
        fs::write(&go, "").unwrap();
        let seen = child.ready(MINUTE, || async {
            anyhow::ensure!(lives.exists(), "not yet");
            Ok(())
        });
        seen.await.unwrap();
        child.ensure_running().unwrap();
        child.kill().await.unwrap();
        assert!(child.ensure_running().is_err());
    }

    #[tokio::test]
    async fn a_child_that_ends_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let child = Process::spawn("false", Path::new("/bin/false"), &[], &[], &dir.path().join("log")).unwrap();
        let ready = child.ready(MINUTE, || async { bail!("never") as Result<()> });
        let error = format!("{:#}", ready.await.unwrap_err());
        assert!(error.contains("false ended") && !error.contains("not within"), "{error}");
    }

    /// Not a test: what the next one runs in a process of its own, to kill it.
    #[test]
    #[ignore = "never ends"]
    fn a_test_process_with_a_child() {
        let pid_file = PathBuf::from(std::env::var_os("TESTKIT_PID_FILE").unwrap());
        let child = sleeper(&pid_file.with_extension("log"));
        // Before it has become what it runs, it may not have asked for the signal yet.
        while !fs::read_to_string(format!("/proc/{}/comm", child.pid())).is_ok_and(|name| name == "sleep\n") {
            thread::sleep(Duration::from_millis(20));
        }
        fs::write(&pid_file, child.pid().to_string()).unwrap();
        thread::sleep(MINUTE * 10);
    }

    #[tokio::test]
    async fn children_end_with_a_test_process_that_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let mut parent = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process::tests::a_test_process_with_a_child"])
            .env("TESTKIT_PID_FILE", &pid_file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pid = until("the child's pid", MINUTE, || async { Ok(fs::read_to_string(&pid_file)?.parse::<u32>()?) });
        let stat = PathBuf::from(format!("/proc/{}/stat", pid.await.unwrap()));
        parent.kill().unwrap();
        parent.wait().unwrap();
        until("the child's end", MINUTE, || async {
            // Gone, or dead and not yet collected by init.
            let state = fs::read_to_string(&stat).unwrap_or_else(|_| "() Z".to_owned());
            anyhow::ensure!(state.contains(") Z"), "it lives: {state}");
            Ok(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn dropping_a_stopped_child_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let child = sleeper(&dir.path().join("log"));
        let proc = PathBuf::from(format!("/proc/{}", child.pid()));
        child.signal(Signal::STOP).unwrap();
        assert!(proc.exists());
        drop(child);
        assert!(!proc.exists());
    }

    #[test]
    fn tail_gives_the_last_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2), "b\nc");
    }
}
