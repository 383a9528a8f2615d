//! Disks that fail: a small one that can be filled, and one that stops answering or becomes read-only.
//!
//! Only for a process that has a mount table of its own, see [`crate::in_namespaces`].

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{is_inside, network::run};

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
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at))?;
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
        run(Command::new("mount").args(["-o", option]).arg(&self.at)).map(drop)
    }

    fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.at)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }
}

/// An ext4 file system in a file. Dropping it unmounts it.
#[derive(Debug)]
pub struct FailingDisk {
    at: PathBuf,
    image: PathBuf,
}

impl FailingDisk {
    /// Mounts one of 24 MiB on a directory, which is made. Fails where the kernel has no loop devices or no ext4.
    pub fn mount(at: &Path) -> Result<Self> {
        ensure!(is_inside(), "only with a mount table of one's own");
        fs::create_dir_all(at)?;
        let image = at.with_extension("image");
        fs::File::create(&image)?.set_len(24 << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let disk = Self { at: at.to_owned(), image };
        disk.attach()?;
        Ok(disk)
    }

    fn attach(&self) -> Result<()> {
        let options = ["-t", "ext4", "-o", "loop,errors=remount-ro"];
        run(Command::new("mount").args(options).arg(&self.image).arg(&self.at)).map(drop)
    }

    /// From now on every write waits, as on a disk that does not answer, until [`Self::thaw`].
    pub fn freeze(&self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--freeze").arg(&self.at)).map(drop)
    }

    /// Writes continue.
    pub fn thaw(&self) -> Result<()> {
        run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.at)).map(drop)
    }

    /// The kernel finds an error in the file system and makes it read-only, under the files that are open.
    pub fn fail(&self) -> Result<()> {
        let device =
            run(Command::new("findmnt").args(["--noheadings", "--output", "SOURCE", "--mountpoint"]).arg(&self.at))?;
        let name = device.trim().trim_start_matches("/dev/");
        Ok(fs::write(format!("/sys/fs/ext4/{name}/trigger_fs_error"), "a test")?)
    }

    /// Checks it as at a reboot, and mounts it again. No file may be open on it.
    pub fn repair(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.at))?;
        // Exit status 1: errors were corrected.
        let output = Command::new("fsck.ext4").args(["-p", "-f"]).arg(&self.image).output()?;
        ensure!(matches!(output.status.code(), Some(0 | 1)), "fsck: {}", String::from_utf8_lossy(&output.stdout));
        self.attach()
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        // A process that waits for a frozen disk cannot even be killed.
        let _ = self.thaw();
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}

/// What a command writes, if it succeeds.
impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The mount table ends with this process anyway; this lets the directory be removed.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
