//! Finds the binaries that `tests/testkit/tools` installed. It never looks on PATH: a test must not
//! run against whatever version the machine happens to have.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// An etcd release line that the tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EtcdVersion {
    /// Debian 12's 3.4.23.
    V3_4,
    /// Debian 13's 3.5.16.
    V3_5,
    /// Built with Go; absent where there is no Go.
    V3_6,
    /// The same.
    V3_7,
    /// A pre-release, built on request: only where [`EtcdVersion::wanted`] asks for it.
    V3_8,
}

impl EtcdVersion {
    /// Every released line that the tests know, oldest first.
    pub const ALL: [Self; 4] = [Self::V3_4, Self::V3_5, Self::V3_6, Self::V3_7];

    /// The one line that all tests run on, whatever they name: `DEFRAGD_ETCD=3.7`.
    ///
    /// # Panics
    /// If it is no line that the tests know.
    pub fn wanted() -> Option<Self> {
        let name = env::var("DEFRAGD_ETCD").ok()?;
        let known = Self::ALL.into_iter().chain([Self::V3_8]).find(|version| version.as_str() == name);
        Some(known.unwrap_or_else(|| panic!("DEFRAGD_ETCD={name} is no line of etcd that the tests know")))
    }

    /// The argument that has a member report `NOT_SERVING` to health checks while it defragments; 3.4 has none.
    pub fn stop_grpc_on_defrag(self) -> Option<&'static str> {
        match self {
            Self::V3_4 => None,
            Self::V3_5 => Some("--experimental-stop-grpc-service-on-defrag=true"),
            _ => Some("--feature-gates=StopGRPCServiceOnDefrag=true"),
        }
    }

    /// As the server's binary is called: `3.4` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3_4 => "3.4",
            Self::V3_5 => "3.5",
            Self::V3_6 => "3.6",
            Self::V3_7 => "3.7",
            Self::V3_8 => "3.8",
        }
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The installed tools.
#[derive(Debug, Clone)]
pub struct Tools {
    bin: PathBuf,
}

impl Tools {
    /// Finds `.tools` at the repository's root, or where `DEFRAGD_TOOLS` says.
    ///
    /// Fails if anything but etcd 3.6 and later is missing, naming the script that installs it.
    pub fn find() -> Result<Self> {
        let dir = env::var_os("DEFRAGD_TOOLS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools"), PathBuf::from);
        Self::within(&dir.join("bin"))
    }

    fn within(bin: &Path) -> Result<Self> {
        let missing: Vec<&str> =
            ["etcd-3.4", "etcdctl-3.4", "etcd-3.5", "etcdctl-3.5", "prometheus", "promtool", "alertmanager", "amtool"]
                .into_iter()
                .filter(|name| !bin.join(name).is_file())
                .collect();
        ensure!(
            missing.is_empty(),
            "missing in {}: {}; install them with tests/testkit/tools",
            bin.display(),
            missing.join(", ")
        );
        Ok(Self { bin: bin.canonicalize()? })
    }

    /// The etcd lines to test on that are present, oldest first. A pre-release takes the place of the newest.
    pub fn etcd_versions(&self) -> Vec<EtcdVersion> {
        let one = |wanted: EtcdVersion| vec![wanted.min(EtcdVersion::V3_7)];
        let lines = EtcdVersion::wanted().map_or_else(|| EtcdVersion::ALL.to_vec(), one);
        lines.into_iter().filter(|&version| self.etcd(version).is_file()).collect()
    }

    /// The etcd server of a line.
    pub fn etcd(&self, version: EtcdVersion) -> PathBuf {
        self.bin.join(format!("etcd-{version}"))
    }

    /// An etcdctl that speaks to a server of that line (3.5's does for later ones, which Debian does not package).
    pub fn etcdctl(&self, version: EtcdVersion) -> PathBuf {
        let line = if version == EtcdVersion::V3_4 { "3.4" } else { "3.5" };
        self.bin.join(format!("etcdctl-{line}"))
    }

    /// The Prometheus server.
    pub fn prometheus(&self) -> PathBuf {
        self.bin.join("prometheus")
    }

    /// A Prometheus 3, where a Debian that has one could be reached.
    pub fn prometheus_3(&self) -> Option<PathBuf> {
        Some(self.bin.join("prometheus-3")).filter(|program| program.is_file())
    }

    /// Prometheus's checker of rules, configurations and metrics.
    pub fn promtool(&self) -> PathBuf {
        self.bin.join("promtool")
    }

    /// The Alertmanager server.
    pub fn alertmanager(&self) -> PathBuf {
        self.bin.join("alertmanager")
    }

    /// Alertmanager's command line client and checker.
    pub fn amtool(&self) -> PathBuf {
        self.bin.join("amtool")
    }

    /// The library that steps the clock of the program into which it is loaded; absent where there is no such package.
    pub fn faketime(&self) -> Option<PathBuf> {
        Some(self.bin.join("libfaketime.so.1")).filter(|library| library.is_file())
    }

    /// Where the programs are.
    pub fn dir(&self) -> &Path {
        &self.bin
    }

    /// One of the programs of a Kubernetes node, if `make tools-kube` (for helm, `make check-deploy`) installed it.
    pub fn node_program(&self, name: &str) -> Option<PathBuf> {
        Some(self.bin.join(name)).filter(|program| program.is_file())
    }

    /// Kubernetes' API server, if it was built: that takes minutes, so only on request.
    pub fn kube_apiserver(&self) -> Option<PathBuf> {
        self.node_program("kube-apiserver")
    }

    /// What drives a browser, if `make tools-browser` installed it: the browser, its driver, and the
    /// accessibility checker's script.
    pub fn browser(&self) -> Option<[PathBuf; 3]> {
        let parts = ["chromium", "chromedriver", "axe.min.js"].map(|name| self.bin.join(name));
        parts.iter().all(|part| part.is_file()).then_some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_named_with_the_script_that_installs_them() {
        let empty = tempfile::tempdir().unwrap();
        let error = Tools::within(empty.path()).unwrap_err().to_string();
        assert!(error.contains("etcd-3.4"), "{error}");
        assert!(error.contains("tests/testkit/tools"), "{error}");
        assert!(!error.contains("etcd-3.6") && !error.contains("etcd-3.7"), "they are optional: {error}");
    }

    #[test]
    fn later_lines_are_driven_with_the_etcdctl_of_35() {
        let tools = Tools { bin: PathBuf::from("/bin") };
        assert_eq!(tools.etcdctl(EtcdVersion::V3_7), Path::new("/bin/etcdctl-3.5"));
    }
}
