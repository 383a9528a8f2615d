//! A limit of memory for one process, as a container has it, and the kernel's OOM killer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A memory cgroup, of version 1 or 2. Dropping it removes it, once its processes have ended.
#[derive(Debug)]
pub struct MemoryLimit {
    dir: PathBuf,
    /// The file that counts the processes which the kernel has killed.
    events: &'static str,
}

impl MemoryLimit {
    /// Makes one with so many bytes. Fails where that is not possible, such as without root.
    pub fn create(bytes: u64) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mounted = |wanted: &dyn Fn(&str, &str) -> bool| {
            let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            let found = fields.into_iter().find(|fields| wanted(fields[2], fields[3]));
            found.map(|fields| PathBuf::from(fields[1]))
        };
        let name = format!("defragd-test-{}", std::process::id());
        let v1 = mounted(&|kind, options| kind == "cgroup" && options.split(',').any(|option| option == "memory"));
        let (dir, limit, events) = if let Some(root) = v1 {
            (root.join(name), "memory.limit_in_bytes", "memory.oom_control")
        } else {
            let root = mounted(&|kind, _| kind == "cgroup2").context("no cgroups are mounted")?;
            fs::write(root.join("cgroup.subtree_control"), "+memory").context("no memory controller")?;
            (root.join(name), "memory.max", "memory.events")
        };
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let made = Self { dir, events };
        fs::write(made.dir.join(limit), bytes.to_string())?;
        Ok(made)
    }

    /// From now on this process, and what it starts, allocates within the limit, and is the first to be killed.
    pub fn add(&self, pid: u32) -> Result<()> {
        fs::write(self.procs(), pid.to_string())?;
        Ok(fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")?)
    }

    /// Lets another process in the group take more memory than there is, and waits until the kernel has killed that one,
    /// too.
    pub fn exhaust(&self) -> Result<()> {
        let script = "echo $$ >\"$0\" && head -c 4G /dev/zero | tail >/dev/null";
        let status = Command::new("sh").args(["-c", script]).arg(self.procs()).status()?;
        ensure!(!status.success(), "4 GiB fitted into the limit");
        Ok(())
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn killed(&self) -> Result<u64> {
        let events = fs::read_to_string(self.dir.join(self.events))?;
        let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Ok(line.context("the kernel does not count them")?.trim().parse()?)
    }

    fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(Path::new(&self.dir));
    }
}
