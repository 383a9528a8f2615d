//! Where the processor time goes, as perf sees it from outside.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::sleep,
};

/// perf at work on one process.
pub(crate) struct Profile {
    perf: Child,
    dir: tempfile::TempDir,
}

impl Profile {
    /// Without call graphs: to unwind costs more than the program does.
    pub(crate) async fn start(pid: u32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let perf = Command::new("perf")
            .args(["record", "--quiet", "--freq", "999", "--pid", &pid.to_string(), "--output"])
            .arg(dir.path().join("perf.data"))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start perf (Debian: linux-perf)")?;
        // It says nothing when it has begun.
        sleep(Duration::from_millis(500)).await;
        Ok(Self { perf, dir })
    }

    /// Writes the share of each library, and of each function, to the file.
    pub(crate) async fn end(mut self, file: &Path) -> Result<()> {
        let pid = self.perf.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("perf has ended")?;
        kill_process(pid, Signal::INT)?;
        self.perf.wait().await?;
        let mut text = String::new();
        for (sort, least) in [("dso", "0.1"), ("symbol", "0.3")] {
            let report = Command::new("perf")
                .args(["report", "--stdio", "--no-children", "--call-graph", "none", "--percent-limit", least])
                .args(["--sort", sort, "--input"])
                .arg(self.dir.path().join("perf.data"))
                .output()
                .await?;
            ensure!(report.status.success(), "perf report: {}", String::from_utf8_lossy(&report.stderr));
            let lines = String::from_utf8_lossy(&report.stdout);
            // Its columns are as wide as the longest symbol, and the last ones hold nothing.
            let lines = lines
                .lines()
                .map(|line| line.trim_end_matches([' ', '-']))
                .filter(|line| !line.is_empty() && !line.starts_with('#'));
            text.extend(lines.map(|line| format!("{line}\n")));
            text.push('\n');
        }
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}
