//! A node to look around in: what `make kube-lab` keeps.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::rig::Rig;

/// What runs a command on the node, once that is ready.
pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/on-node")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs inside"]
async fn until_the_end() {
    let rig = Rig::of_the_control_plane().await;
    rig.install(&rig.values()).await;
    // Outside, containerd is found by its command line, which names this node's directory.
    let text = format!(
        "#!/bin/sh\n# Runs a command on the node of `make kube-lab`.\n\
         node=$(pgrep -f -o '^[^ ]*containerd --config {dir}') || {{ echo 'the node is gone' >&2; exit 1; }}\n\
         exec nsenter -t \"$node\" -m -n -p -u env KUBECONFIG={config} PATH={tools}:\"$PATH\" \"$@\"\n",
        dir = rig.lab.dir().display(),
        config = rig.lab.kubeconfig().display(),
        tools = rig.lab.tools().dir().display(),
    );
    let new = script().with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, script()).unwrap();
    std::future::pending::<()>().await;
}
