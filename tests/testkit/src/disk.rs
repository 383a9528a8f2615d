//! A small disk for one member, and a way to fill it.
//!
//! Only for a process that has a mount table of its own, see [`crate::in_namespaces`].

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::is_inside;

/// A file system in memory with a limit. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// Mounts one of this size on a directory, which is made.
    pub fn mount(at: &Path, bytes: u64) -> Result<Self> {
        ensure!(is_inside(), "only with a mount table of one's own");
        fs::create_dir_all(at)?;
        let size = format!("size={bytes},mode=0700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output()?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { at: at.to_owned() })
    }

    /// Fills it until only so many bytes are free.
    pub fn fill(&self, leave_bytes: u64) -> Result<()> {
        let mut filler = fs::File::options().create(true).append(true).open(self.at.join("filler"))?;
        let chunk = vec![0_u8; 64 * 1024];
        loop {
            let left = self.free()?.saturating_sub(leave_bytes);
            let part = usize::try_from(left)?.min(chunk.len());
            if part == 0 {
                return Ok(());
            }
            filler.write_all(&chunk[..part])?;
        }
    }

    /// Removes the file that filled it.
    pub fn clear(&self) -> Result<()> {
        Ok(fs::remove_file(self.at.join("filler"))?)
    }

    /// Makes it read-only, or writable again. No file may be open for writing.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let option = if read_only { "remount,ro" } else { "remount,rw" };
        let output = Command::new("mount").args(["-o", option]).arg(&self.at).output()?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.at)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The mount table ends with this process anyway; this lets the directory be removed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
