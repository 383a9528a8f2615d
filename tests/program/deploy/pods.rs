//! The program with the arguments of the pods and Jobs.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use testkit::{Defragd, Pki};

use super::{Rendered, arguments, array, flag, rendered, shard, text, yaml};
use crate::rig::{binary, root};

/// Runs a Job's arguments on a cluster that is not there: they are understood, and the run is refused.
pub(super) fn job_runs(arguments: &[String], path: &str) {
    let dir = tempfile::tempdir().unwrap();
    let name = flag(arguments, "--cluster").unwrap_or("etcd");
    let config =
        format!("clusters: [{{name: {name}, endpoints: [\"http://127.0.0.1:1\"], policy: {{mode: enforce}}}}]");
    fs::write(dir.path().join("config.yaml"), config).unwrap();
    let here = |argument: &String| {
        argument
            .replace("/etc/defragd/config", dir.path().to_str().unwrap())
            .replace("/var/lib/defragd", dir.path().join("journal").to_str().unwrap())
    };
    let output = Command::new(binary()).args(arguments.iter().map(here)).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{path}: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((&answer["run"]["cluster"], &answer["run"]["outcome"]), (&name.into(), &"refused".into()), "{path}");
}

/// No token of Kubernetes without a right that needs it, and no right but those that defragd's code uses.
pub(super) fn has_no_right_that_nothing_needs(file: &Rendered) {
    let (path, pod) = (file.path.display(), file.pod().unwrap());
    let right = |group: &str, resource: &str, verbs: &[&str]| serde_json::json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs}]);
    let lists = |resource: &str| right("", resource, &["list"]);
    let mut roles = 0;
    for role in file.of_kind("ClusterRole").chain(file.of_kind("Role")) {
        roles += 1;
        let (rules, own) = (&role["rules"], role["metadata"]["namespace"].as_str());
        let allowed = match own {
            // adapters/gates/kubernetes
            None => vec![lists("pods"), lists("nodes")],
            Some("kube-system") => vec![lists("pods")],
            // adapters/kubernetes_event.rs, adapters/lock/kubernetes.rs
            Some(_) => vec![
                right("events.k8s.io", "events", &["create"]),
                right("coordination.k8s.io", "leases", &["get", "create", "update"]),
            ],
        };
        assert!(allowed.contains(rules), "{path}: {own:?}: {rules}");
    }
    assert_eq!(pod["automountServiceAccountToken"], roles > 0, "{path}");
    let has = |resource: &str| {
        let mut roles = file.of_kind("Role");
        roles.any(|role| role["rules"][0]["resources"][0] == resource)
    };
    let leases = flag(&arguments(pod), "--lock.kind") == Some("kubernetes");
    assert_eq!(has("leases"), leases, "{path}");
    // What the Events are about.
    let variables: Vec<_> =
        array(&pod["containers"][0]["env"]).iter().map(|variable| text(&variable["name"])).collect();
    for name in ["POD_NAME", "POD_NAMESPACE", "POD_UID"] {
        assert_eq!(variables.contains(&name), has("events"), "{path}: {name}");
    }
}

#[test]
fn no_overlay_moves_a_right_in_kube_system_into_its_own_namespace() {
    let components = root().join("deploy/kustomize/components/nodes-gate/nodes-gate.yaml");
    let placed = Rendered::read(components);
    assert!(placed.of_kind("Role").all(|role| role["metadata"]["namespace"] == "kube-system"));
    for overlay in fs::read_dir(root().join("deploy/kustomize/overlays")).unwrap() {
        let path = overlay.unwrap().path().join("kustomization.yaml");
        let overlay = yaml(&fs::read_to_string(&path).unwrap(), &path);
        assert_eq!(overlay["namespace"], Value::Null, "{}: it applies to the Role, too", path.display());
    }
}

#[test]
fn each_object_of_a_kustomization_says_its_namespace() {
    let is_of_cluster = |kind: &str| kind == "Namespace" || kind.starts_with("Cluster");
    for file in rendered() {
        let name = file.path.file_name().unwrap().to_string_lossy().into_owned();
        for object in file.objects.iter().filter(|object| !is_of_cluster(text(&object["kind"]))) {
            let is_said = object["metadata"]["namespace"].is_string();
            assert!(!name.starts_with("kustomize") || is_said, "{name}: {}", object["metadata"]);
        }
    }
}

/// Starts the program with a pod's arguments, below a directory that holds what the pod has mounted.
async fn start(file: &Rendered, config: &str, dir: &Path, pki: &Pki) -> Defragd {
    let here = |path: &str| {
        path.replace("/etc/defragd/", &format!("{}/etc/", dir.display()))
            .replace("/var/lib/defragd", &format!("{}/journal", dir.display()))
    };
    let put = |path: &str, content: &[u8]| {
        let path = here(path);
        fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let pod = file.pod().unwrap();
    let mounted = |path: &str| {
        let mounts = array(&pod["containers"][0]["volumeMounts"]);
        let below = mounts.iter().any(|mount| path.starts_with(&format!("{}/", text(&mount["mountPath"]))));
        assert!(below, "{}: {path} is on no volume", file.path.display());
    };
    let values = yaml(config, &file.path);
    for cluster in array(&values["clusters"]) {
        let (tls, auth) = (&cluster["tls"], &cluster["auth"]);
        let client = pki.client();
        for (key, content) in [("ca_file", pki.ca()), ("cert_file", &client.cert), ("key_file", &client.key)] {
            if let Some(path) = tls[key].as_str() {
                mounted(path);
                put(path, &fs::read(content).unwrap());
            }
        }
        if let Some(path) = auth["password_file"].as_str() {
            mounted(path);
            put(path, b"secret\n");
        }
    }
    put("/etc/defragd/config/config.yaml", here(config).as_bytes());
    let mut arguments = arguments(pod);
    arguments.remove(0);
    if let Some(from) = shard(pod) {
        // The label that Kubernetes gives each pod of a StatefulSet, 0 for the first one.
        assert_eq!(from["fieldRef"]["fieldPath"], "metadata.labels['apps.kubernetes.io/pod-index']");
        arguments.push("--shard=0".to_owned());
    }
    for argument in &mut arguments {
        let (name, value) =
            argument.split_once('=').map_or((argument.clone(), None), |(name, value)| (name.to_owned(), Some(value)));
        match (name.as_str(), value) {
            ("--web.listen-address", _) => *argument = format!("{name}=127.0.0.1:0"),
            (_, Some(path)) if path.starts_with("/etc/") => {
                mounted(path);
                let content =
                    if name.ends_with("ca-file") { fs::read(pki.ca()).unwrap() } else { b"0123456789abcdef".to_vec() };
                if name != "--config" {
                    put(path, &content);
                }
                *argument = here(argument);
            }
            _ => *argument = here(argument),
        }
    }
    Defragd::start(binary(), &arguments, &dir.join("log")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_starts_with_each_pods_arguments_and_answers_its_probes() {
    let example = "clusters: [{name: etcd, endpoints: [\"http://127.0.0.1:1\"]}]".to_owned();
    let pki_dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(pki_dir.path()).unwrap();
    for file in rendered() {
        let dir = tempfile::tempdir().unwrap();
        let config = file.of_kind("ConfigMap").find_map(|map| map["data"]["config.yaml"].as_str());
        // The base has none: an overlay adds it.
        assert!(config.is_some() || file.path.ends_with("base/defragd.yaml"), "{}", file.path.display());
        if let Some(config) = config {
            let path = dir.path().join("config.yaml");
            fs::write(&path, config).unwrap();
            let checked = Command::new(binary()).args(["check-config", "--syntax-only"]).arg(&path).output().unwrap();
            assert!(checked.status.success(), "{}: {}", file.path.display(), String::from_utf8_lossy(&checked.stderr));
        }
        // Do not contact any member: the addresses of the examples may exist.
        let config = config.map_or(example.clone(), nowhere);
        let defragd = start(&file, &config, dir.path(), &pki).await;
        let container = &file.pod().unwrap()["containers"][0];
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let path = text(&container[probe]["httpGet"]["path"]);
            assert_eq!(defragd.get(path).await.unwrap().status, 200, "{}: {path}", file.path.display());
        }
        assert_eq!(defragd.get("/-/no-such-page").await.unwrap().status, 404);
    }
}

/// The configuration with each host replaced by a closed port of this machine, a different one for each.
fn nowhere(config: &str) -> String {
    let mut changed = String::new();
    let mut ports = 1..;
    let mut rest = config;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || ".:-{}".contains(c))).unwrap_or(after.len());
        changed.push_str(before);
        if after.starts_with("{host}") {
            // The host of a member, which is replaced where it is written.
            changed.push_str(&after[..end]);
        } else {
            changed.push_str("127.0.0.1:");
            changed.push_str(&ports.next().unwrap().to_string());
        }
        rest = &after[end..];
    }
    changed + rest
}
