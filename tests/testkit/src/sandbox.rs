//! Tests that change networks or mounts do so in their own namespaces: the test program starts itself again inside
//! them, and everything created there ends with it.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;

/// Set for the test inside.
const INSIDE: &str = "DEFRAGD_TEST_INSIDE";
/// The longest of these tests takes about a minute on an idle machine, and several times that on a busy one.
const LIMIT: Duration = Duration::from_mins(10);

/// Whether this process is the test program that [`in_namespaces`] started.
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs an `#[ignore]`d test of this test program, by its full name, as the only one, with a network
/// (loopback only) and a mount table of its own. Gives why it cannot, if it cannot; fails as it fails.
pub async fn in_namespaces(test: &str) -> Result<Option<String>> {
    in_namespaces_for(test, LIMIT).await
}

/// The same for one that may take as long as this.
pub async fn in_namespaces_for(test: &str, limit: Duration) -> Result<Option<String>> {
    match impossible() {
        Some(why) => Ok(Some(why)),
        None => inside(test, limit, &["--net", "--mount"], "ip link set lo up && exec \"$@\"").await.map(|()| None),
    }
}

/// Runs such a test with these namespaces of its own, through a shell script that prepares them and then runs `"$@"`.
pub(crate) async fn inside(test: &str, limit: Duration, namespaces: &[&str], script: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("log");
    let program = env::current_exe()?.display().to_string();
    let mut args: Vec<String> = namespaces.iter().map(|&flag| flag.to_owned()).collect();
    args.extend(
        ["--", "sh", "-c", script, "sh", &program, "--exact", test, "--ignored", "--nocapture"].map(str::to_owned),
    );
    let envs = [(INSIDE.to_owned(), "1".to_owned())];
    let process = Process::spawn(test, Path::new("unshare"), &args, &envs, &log)?;
    let ended = process.wait(limit).await;
    let output = fs::read_to_string(&log).unwrap_or_default();
    println!("{output}");
    ensure!(ended.with_context(|| process.tail(40))?.success(), "{test} failed inside:\n{}", process.tail(40));
    ensure!(output.contains("1 passed"), "{test} did not run inside:\n{output}");
    Ok(())
}

/// Why namespaces are not possible here.
pub(crate) fn impossible() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("namespaces, mounts and links need root".to_owned());
    }
    if std::process::Command::new("ip").arg("-V").output().is_err() {
        return Some("there is no `ip` here: install iproute2".to_owned());
    }
    let output = std::process::Command::new("unshare").args(["--net", "--mount", "true"]).output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("unshare: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("unshare: {error}")),
    }
}
