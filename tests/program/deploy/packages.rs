//! What `make dist` builds packages from. What it made is tested by `make check-dist`.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use super::{array, read, text, yaml};
use crate::rig::{binary, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The versions in names of files and images, such as `defragd_1.2.3-1_amd64.deb`, `defragd:1.2.3` or `defragd-v1.2.3-image.tar`.
fn versions_in_names(page: &str) -> Vec<&str> {
    let names = page.split("defragd").skip(1).filter_map(|rest| rest.strip_prefix(['-', '_', ':']));
    let versions = names.map(|rest| {
        let rest = rest.strip_prefix('v').unwrap_or(rest);
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        rest[..end].trim_end_matches('.')
    });
    versions.filter(|version| version.contains('.')).collect()
}

#[test]
fn the_version_is_the_programs() {
    let chart = yaml(&read("deploy/helm/defragd/Chart.yaml"), Path::new("Chart.yaml"));
    assert_eq!((&chart["version"], &chart["appVersion"]), (&VERSION.into(), &VERSION.into()));
    assert!(read("Dockerfile").contains(&format!("ARG VERSION={VERSION}\n")));
    assert!(read("CHANGELOG.md").contains(&format!("\n## {VERSION} ")));
    let label = format!("app.kubernetes.io/version: \"{VERSION}\"");
    assert!(read("deploy/kustomize/base/defragd.yaml").contains(&label), "make deploy-generated");
    for overlay in ["overlays/kubeadm", "overlays/kubespray", "tests/cronjob"] {
        let file = read(&format!("deploy/kustomize/{overlay}/kustomization.yaml"));
        assert!(file.contains(&format!("newTag: {VERSION}\n")), "{overlay}");
    }
    for page in ["README.md", "deploy/README.md", "deploy/kustomize/base/defragd.yaml"] {
        let page_text = read(page);
        let versions = versions_in_names(&page_text);
        assert!(!versions.is_empty() && versions.iter().all(|version| *version == VERSION), "{page}: {versions:?}");
    }
    // The workspace's other crates follow.
    let metadata = cargo_metadata();
    assert!(array(&metadata["packages"]).iter().all(|package| package["version"] == VERSION));
}

fn cargo_metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// cargo-deb and cargo-generate-rpm have a list each. `deploy/release` makes what is below target.
#[test]
fn both_packages_have_the_same_files() {
    let metadata = cargo_metadata();
    let package = array(&metadata["packages"]).iter().find(|package| package["name"] == "defragd").unwrap();
    let (deb, rpm) = (&package["metadata"]["deb"], &package["metadata"]["generate-rpm"]);
    let mut of_deb: BTreeSet<_> = array(&deb["assets"]).iter().map(|asset| text(&asset[0]).to_owned()).collect();
    // The licence and the units are settings of their own there.
    of_deb.insert(text(&deb["license-file"][0]).to_owned());
    of_deb.insert(format!("{}/*", text(&deb["systemd-units"]["unit-scripts"])));
    let of_rpm: BTreeSet<_> = array(&rpm["assets"]).iter().map(|asset| text(&asset["source"]).to_owned()).collect();
    assert_eq!(of_deb, of_rpm);
    let scripts = ["post_install_script", "pre_uninstall_script", "post_uninstall_script"].map(|name| text(&rpm[name]));
    let sources = of_deb.iter().map(String::as_str).filter(|source| !source.starts_with("target/"));
    for source in sources.chain(scripts) {
        let source = source.split('*').next().unwrap();
        assert!(root().join(source).exists(), "{source}");
    }
}

fn checked(config: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    fs::write(&file, config).unwrap();
    Command::new(binary()).args(["check-config", "--syntax-only"]).arg(&file).output().unwrap()
}

#[test]
fn the_packaged_configuration_is_good_once_its_cluster_is_uncommented() {
    let packaged = read("deploy/packages/config.yaml");
    let refused = checked(&packaged);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && why.contains("clusters: "), "{why}");

    let (comment, clusters) = packaged.split_once("\n#clusters:").unwrap();
    let uncommented = format!("{comment}\nclusters:{}", clusters.replace("\n#", "\n"));
    let good = checked(&uncommented);
    assert!(good.status.success(), "{}{uncommented}", String::from_utf8_lossy(&good.stderr));
    assert_eq!(yaml(&uncommented, Path::new("config.yaml"))["clusters"][0]["policy"]["mode"], "observe");
}
