//! The namespaces of a node.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    Tools,
    network::Host,
    sandbox::{impossible, inside},
};

/// The node's address; nothing is reachable beyond it.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(super) const PODS: &str = "198.18.64.0/18";
pub(super) const SERVICES: &str = "198.19.0.0/16";

/// All of a test; on a busy machine a node alone takes a minute to be ready.
const LIMIT: Duration = Duration::from_mins(10);

/// The end of a node's processes, on a busy machine.
const REMOVED: Duration = Duration::from_mins(2);

/// Prepares the namespaces; `$LAB` is a directory that is the node's alone, and the arguments are the program to run.
const PREPARE: &str = r#"
set -e
hostname node1
mount --make-rprivate /
mkdir -p "$LAB/var" "$LAB/work"
# What kubelet, containerd and CNI write below /var stays in the directory.
mount -t overlay overlay -o "lowerdir=/var,upperdir=$LAB/var,workdir=$LAB/work" /var
mount -t tmpfs tmpfs /run
mkdir -p /run/lock
# The kubelet sets these for the whole machine: it finds them as it wants them.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$LAB/sysctl-$(echo "${setting%=*}" | tr / -)
  echo "${setting#*=}" > "$file"
  mount --bind "$file" "/proc/sys/${setting%=*}"
done
ip link set lo up
ip link add node0 type bridge
ip addr add "$ADDRESS/24" dev node0
ip link set node0 up
ip route add default dev node0
echo 1 > /proc/sys/net/ipv4/ip_forward
# Not exec: the first process of the namespace collects orphans.
"$@"
"#;

/// What a node needs beside the namespaces.
const PROGRAMS: [&str; 8] = ["buildah", "conntrack", "ipset", "iptables", "nft", "mount", "hostname", "unshare"];

/// Where a cluster of etcd listens so that pods reach it.
#[derive(Debug, Clone, Copy)]
pub struct Placement;

impl Placement {
    /// On the node's address, for [`crate::EtcdSpec::hosts`].
    pub fn on_the_node() -> Host {
        Host { client_ip: IpAddr::V4(ADDRESS), ..Host::LOOPBACK }
    }
}

/// Runs an `#[ignore]`d test of this test program, by its full name, as the only one, on a node of its own. Gives why it
/// cannot, if it cannot; fails as it fails.
pub async fn in_node(test: &str) -> Result<Option<String>> {
    in_node_for(test, LIMIT).await
}

/// The same for one that may take as long as this.
pub async fn in_node_for(test: &str, limit: Duration) -> Result<Option<String>> {
    if let Some(why) = impossible().or_else(missing) {
        return Ok(Some(why));
    }
    // Not below /var, which becomes an overlay: containerd's own overlays cannot be on one.
    let dir = tempfile::Builder::new().prefix("defragd-node-").tempdir()?;
    let script =
        format!("export LAB='{}' TMPDIR='{}' ADDRESS={ADDRESS}\n{PREPARE}", dir.path().display(), dir.path().display());
    let namespaces = ["--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"];
    let _cgroups = Cgroups;
    inside(test, limit, &namespaces, &script).await.map(|()| None)
}

/// Which part of it is not on this machine.
fn missing() -> Option<String> {
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(error) => return Some(error.to_string()),
    };
    let needed = ["kubelet", "containerd", "kube-clients", "nginx"];
    if let Some(program) = needed.into_iter().find(|program| tools.node_program(program).is_none()) {
        return Some(format!("there is no {program} here: make tools-kube"));
    }
    let has = |program: &&str| {
        let dirs = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        dirs.split(':').any(|dir| Path::new(dir).join(program).is_file())
    };
    if let Some(program) = PROGRAMS.iter().find(|program| !has(program)) {
        return Some(format!("there is no {program} here: make tools-kube, as root"));
    }
    if !cgroups().is_empty() {
        return Some(
            "this machine is a node of Kubernetes itself, or another test is running one: /sys/fs/cgroup has kubepods"
                .to_owned(),
        );
    }
    None
}

/// The kubelet's cgroups: /sys/fs/cgroup is the whole machine's.
fn cgroups() -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path().join("kubepods"));
    hierarchies.chain([root.join("kubepods")]).filter(|path| path.is_dir()).collect()
}

/// Removes them once the node is gone.
struct Cgroups;

impl Drop for Cgroups {
    fn drop(&mut self) {
        fn remove(dir: &Path) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
                remove(&entry.path());
            }
            let _ = fs::remove_dir(dir);
        }
        // The kernel ends the node's processes after their first one, and one of them may still be there. Where they
        // stay, the next test would be skipped.
        let end = Instant::now() + REMOVED;
        loop {
            let left = cgroups();
            if left.is_empty() {
                return;
            }
            for cgroup in left {
                remove(&cgroup);
            }
            if Instant::now() >= end {
                return eprintln!("the node's cgroups are still in use: {:?}", cgroups());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
