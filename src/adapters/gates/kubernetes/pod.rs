//! What is read of a pod: the few fields that show its health and its workload. Kubernetes' own types have hundreds,
//! and most of a page of pods is not needed here (`managedFields`, volumes, environment).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Pod {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: Spec,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) creation_timestamp: Option<Timestamp>,
    /// When it is to be gone: the time of the request plus its grace period.
    pub(super) deletion_timestamp: Option<Timestamp>,
    #[serde(default)]
    pub(super) owner_references: Option<Vec<Owner>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Owner {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) controller: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    pub(super) restart_policy: Option<String>,
    pub(super) node_name: Option<String>,
    containers: Option<Vec<ContainerSpec>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ContainerSpec {
    image: String,
}

impl Spec {
    pub(super) fn images(&self) -> String {
        let images: Vec<_> = self.containers.iter().flatten().map(|container| container.image.as_str()).collect();
        images.join(" and ")
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) phase: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) conditions: Option<Vec<Condition>>,
    pub(super) init_container_statuses: Option<Vec<Container>>,
    pub(super) container_statuses: Option<Vec<Container>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) ready: bool,
    pub(super) restart_count: u32,
    pub(super) state: ContainerState,
    pub(super) last_state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    pub(super) waiting: Option<Waiting>,
    pub(super) running: Option<Running>,
    pub(super) terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Waiting {
    pub(super) reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Running {
    pub(super) started_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Terminated {
    pub(super) exit_code: i32,
    pub(super) reason: Option<String>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
}

impl Pod {
    /// The workload that it belongs to, so that a replacement under a new name is recognised: `namespace/Kind/name`.
    ///
    /// - A Deployment's pods belong to the Deployment, not to one of its `ReplicaSets`: a rollout is no new workload.
    /// - The Jobs of a `CronJob` are one workload. Only pods may be read, so this is derived from the name alone: it
    ///   ends with the minute, eight digits.
    /// - A pod whose name is kept when it is recreated is its own workload: those of a `StatefulSet`, the static ones
    ///   of a node (whose owner is the Node), and those without a controller.
    pub(super) fn workload(&self) -> String {
        let Metadata { name, namespace, labels, owner_references, .. } = &self.metadata;
        let owner = owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        let (kind, name) = match owner {
            None => ("Pod", name.as_str()),
            Some(owner) => match owner.kind.as_str() {
                "Node" | "StatefulSet" => ("Pod", name.as_str()),
                "ReplicaSet" => labels
                    .as_ref()
                    .and_then(|labels| labels.get("pod-template-hash"))
                    .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
                    .map_or(("ReplicaSet", owner.name.as_str()), |deployment| ("Deployment", deployment)),
                "Job" => owner
                    .name
                    .rsplit_once('-')
                    .filter(|(_, minute)| minute.len() == 8 && minute.bytes().all(|byte| byte.is_ascii_digit()))
                    .map_or(("Job", owner.name.as_str()), |(cron_job, _)| ("CronJob", cron_job)),
                other => (other, owner.name.as_str()),
            },
        };
        format!("{namespace}/{kind}/{name}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_is_known_by_what_survives_its_replacement() {
        let workload = |name: &str, owner: Option<(&str, &str)>, hash: &str| {
            let mut pod = json!({"metadata": {"name": name, "namespace": "n", "labels": {"pod-template-hash": hash}}});
            if let Some((kind, name)) = owner {
                let plain = json!({"kind": "Other", "name": "not-the-controller"});
                let controller = json!({"kind": kind, "name": name, "controller": true});
                pod["metadata"]["ownerReferences"] = json!([plain, controller]);
            }
            serde_json::from_value::<Pod>(pod).expect("a pod").workload()
        };
        let table = [
            ("alone", None, "", "n/Pod/alone"),
            ("web-6d4b-x2x", Some(("ReplicaSet", "web-6d4b")), "6d4b", "n/Deployment/web"),
            ("web-6d4b-x2x", Some(("ReplicaSet", "web-6d4b")), "other", "n/ReplicaSet/web-6d4b"),
            ("db-0", Some(("StatefulSet", "db")), "", "n/Pod/db-0"),
            ("cni-x7k", Some(("DaemonSet", "cni")), "", "n/DaemonSet/cni"),
            ("etcd-node1", Some(("Node", "node1")), "", "n/Pod/etcd-node1"),
            ("backup-29391230-abc", Some(("Job", "backup-29391230")), "", "n/CronJob/backup"),
            ("migrate-2-abc", Some(("Job", "migrate-2")), "", "n/Job/migrate-2"),
        ];
        for (name, owner, hash, expected) in table {
            assert_eq!(workload(name, owner, hash), expected);
        }
    }
}
