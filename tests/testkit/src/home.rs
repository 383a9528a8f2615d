//! A folder for one defragd: tokens, journal and log.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::Defragd;

/// What defragd is installed with, in a folder that is removed with this.
#[derive(Debug)]
pub struct Home {
    binary: PathBuf,
    dir: TempDir,
}

impl Home {
    /// The token that may send alerts.
    pub const TOKEN: &str = "0123456789abcdef-test-token";
    /// The token that may do everything else.
    pub const ADMIN: &str = "0123456789abcdef-admin-token";

    /// With the files of both tokens, for [`Home::token_flags`].
    pub fn new(binary: &Path) -> Result<Self> {
        let home = Self { binary: binary.to_owned(), dir: tempfile::tempdir()? };
        home.write("token", Self::TOKEN)?;
        home.write("admin", Self::ADMIN)?;
        Ok(home)
    }

    /// Runs this program from now on.
    pub fn run(&mut self, binary: &Path) {
        binary.clone_into(&mut self.binary);
    }

    /// Where a file of this name is, or will be.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// The flag with the path of this file as its value.
    pub fn flag(&self, flag: &str, file: &str) -> String {
        format!("{flag}={}", self.path(file).display())
    }

    /// The flags that make defragd ask for both tokens.
    pub fn token_flags(&self) -> Vec<String> {
        vec![self.flag("--web.bearer-token-file", "token"), self.flag("--web.admin-token-file", "admin")]
    }

    /// The flags of a cluster that is not there: nothing listens on port 1.
    pub fn nowhere() -> Vec<String> {
        vec!["--endpoints=http://127.0.0.1:1".to_owned(), "--cluster-name=demo".to_owned()]
    }

    /// Starts `defragd serve` with its journal here and these flags. Several may follow each other.
    pub async fn serve(&self, flags: &[String]) -> Result<Defragd> {
        let mut args = vec![self.flag("--data-dir", "journal")];
        args.extend_from_slice(flags);
        Defragd::start(&self.binary, &args, &self.path("defragd.log")).await
    }
}

/// Writes a program that runs another one with the same arguments, under what the shell is given first: a variable such
/// as `A=b`, or a command such as `ulimit -n 64 &&`.
pub fn wrap(program: &Path, under: &str, at: &Path) -> Result<()> {
    fs::write(at, format!("#!/bin/sh\n{under} exec '{}' \"$@\"\n", program.display()))?;
    Ok(fs::set_permissions(at, fs::Permissions::from_mode(0o755))?)
}
