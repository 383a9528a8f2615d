//! Whether a control plane is complete, and nothing is being done to it: a pure function of its nodes and their static
//! pods.
//!
//! | what | must be |
//! |---|---|
//! | nodes that the selector chooses | at least one; all Ready, not cordoned, not being deleted |
//! | their kubelets | of one version: while an upgrade moves from node to node, they differ |
//! | static pods of these nodes | ready, and not being replaced |
//! | static pods of one component, such as `kube-apiserver` | of the same images: kubeadm replaces them before the kubelet |
//! | `kube-apiserver` | a static pod on each node, if it has one on any: the kubelet deletes a static pod to replace it |
//!
//! A rollout that changes only flags shows while a static pod restarts, not between two nodes: flags differ between nodes
//! anyway, by their addresses. Distributions whose control plane is one process (k3s) have no static pods: there the
//! kubelet's version is that of everything.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;

use super::{
    health::{Health, judge},
    pod::{Condition, Pod},
};

/// Every control-plane node has one, or none has.
const API_SERVER: &str = "kube-apiserver";

/// What is read of a node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    /// Cordoned.
    unschedulable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Option<Vec<Condition>>,
    node_info: NodeInfo,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: String,
}

/// Nodes, and the pods that may be static pods of theirs.
#[derive(Clone, Debug, Default)]
pub(super) struct ControlPlane {
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<Pod>,
}

/// What is wrong with a control plane, or is being done to it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Trouble {
    #[error("no node matches label_selector: set it to a label of the control-plane nodes")]
    NoNodes,
    #[error("the node {node} is not Ready ({why}): see `kubectl describe node {node}`")]
    NotReady { node: String, why: String },
    #[error("the node {node} is cordoned: `kubectl uncordon {node}` once its maintenance is done")]
    Cordoned { node: String },
    #[error("the node {node} is being deleted: wait until it is gone")]
    BeingDeleted { node: String },
    /// Which version is on which nodes.
    #[error("an upgrade is in progress: finish it; the kubelet is {}", places(.0))]
    KubeletsDiffer(BTreeMap<String, Vec<String>>),
    #[error("{component} on {node} is not ready ({why}): see `kubectl -n kube-system describe pod {component}-{node}`")]
    PodNotReady { component: String, node: String, why: String },
    #[error("{component} has no static pod on {node}: it is being replaced, or its manifest is gone")]
    PodMissing { component: String, node: String },
    #[error("a rollout is in progress: finish it; {component} is {}", places(images))]
    ImagesDiffer {
        component: String,
        /// Which images are on which nodes.
        images: BTreeMap<String, Vec<String>>,
    },
}

/// `v1.34.2 on n1, v1.35.0 on n2 and n3`.
fn places(found: &BTreeMap<String, Vec<String>>) -> String {
    let places: Vec<_> = found.iter().map(|(what, nodes)| format!("{what} on {}", nodes.join(" and "))).collect();
    places.join(", ")
}

impl ControlPlane {
    /// Everything that is wrong, nodes first.
    pub(super) fn trouble(&self, now: Timestamp) -> Vec<Trouble> {
        if self.nodes.is_empty() {
            return vec![Trouble::NoNodes];
        }
        let mut found: Vec<_> = self.nodes.iter().flat_map(Node::trouble).collect();
        let versions = self.nodes.iter().map(|node| (node.status.node_info.kubelet_version.clone(), node.name()));
        found.extend(several(versions).map(Trouble::KubeletsDiffer));
        found.extend(self.static_pods().filter_map(|(component, node, pod)| {
            let why = match judge(pod, now) {
                _ if pod.metadata.deletion_timestamp.is_some() => "being replaced".to_owned(),
                Health::Healthy | Health::Restless(_) => return None,
                Health::Failed(why) | Health::Unhealthy(why) => why,
            };
            Some(Trouble::PodNotReady { component: component.to_owned(), node: node.to_owned(), why })
        }));
        let on: BTreeSet<_> =
            self.static_pods().filter(|(component, ..)| *component == API_SERVER).map(|(_, node, _)| node).collect();
        let missing = self.nodes.iter().map(Node::name).filter(|node| !on.is_empty() && !on.contains(node.as_str()));
        found.extend(missing.map(|node| Trouble::PodMissing { component: API_SERVER.to_owned(), node }));
        let components: BTreeSet<_> = self.static_pods().map(|(component, ..)| component.to_owned()).collect();
        found.extend(components.into_iter().filter_map(|component| {
            let pods = self.static_pods().filter(|(other, ..)| *other == component);
            let images = several(pods.map(|(_, node, pod)| (pod.spec.images(), node.to_owned())))?;
            Some(Trouble::ImagesDiffer { component, images })
        }));
        found
    }

    /// How many static pods these nodes have.
    pub(super) fn pods(&self) -> usize {
        self.static_pods().count()
    }

    /// The version of the kubelets, if there is no trouble.
    pub(super) fn version(&self) -> &str {
        self.nodes.first().map_or("", |node| &node.status.node_info.kubelet_version)
    }

    /// Component, node and pod. The kubelet calls the pod of the manifest NAME on the node NODE `NAME-NODE`.
    fn static_pods(&self) -> impl Iterator<Item = (&str, &str, &Pod)> {
        self.pods.iter().filter_map(|pod| {
            let is_static = pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Node");
            let node = pod.spec.node_name.as_deref().filter(|_| is_static)?;
            self.nodes.iter().find(|known| known.metadata.name == node)?;
            Some((pod.metadata.name.strip_suffix(node)?.strip_suffix('-')?, node, pod))
        })
    }
}

impl Node {
    fn name(&self) -> String {
        self.metadata.name.clone()
    }

    fn trouble(&self) -> Vec<Trouble> {
        let node = || self.name();
        let ready = self.status.conditions.iter().flatten().find(|condition| condition.kind == "Ready");
        let why = match ready {
            Some(ready) if ready.status == "True" => None,
            Some(ready) => Some(ready.reason.clone().unwrap_or_else(|| ready.status.clone())),
            None => Some("no condition".to_owned()),
        };
        let not_ready = why.map(|why| Trouble::NotReady { node: node(), why });
        let cordoned = self.spec.unschedulable.then(|| Trouble::Cordoned { node: node() });
        let deleted = self.metadata.deletion_timestamp.map(|_| Trouble::BeingDeleted { node: node() });
        not_ready.into_iter().chain(cordoned).chain(deleted).collect()
    }
}

/// What is found on which nodes, if it is not the same everywhere.
fn several(found: impl Iterator<Item = (String, String)>) -> Option<BTreeMap<String, Vec<String>>> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (what, node) in found {
        places.entry(what).or_default().push(node);
    }
    (places.len() > 1).then_some(places)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    type Change = fn(&mut Value);

    fn node(name: &str, change: impl FnOnce(&mut Value)) -> Node {
        let mut node = json!({"metadata": {"name": name}, "spec": {}, "status": {
            "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0"}}});
        change(&mut node);
        serde_json::from_value(node).expect("a node")
    }

    fn pod(component: &str, node: &str, change: impl FnOnce(&mut Value)) -> Pod {
        let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": node, "uid": "u", "controller": true}]);
        let mut pod = json!({
            "metadata": {"name": format!("{component}-{node}"), "namespace": "kube-system", "ownerReferences": owner},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "k8s/x:v1.35.0"}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        change(&mut pod);
        serde_json::from_value(pod).expect("a pod")
    }

    fn plane(change: impl FnOnce(&mut ControlPlane)) -> Vec<String> {
        let nodes = vec![node("n1", |_| ()), node("n2", |_| ())];
        let components = [("kube-apiserver", "n1"), ("kube-apiserver", "n2"), ("etcd", "n1"), ("etcd", "n2")];
        let pods = components.map(|(component, node)| pod(component, node, |_| ())).to_vec();
        let mut plane = ControlPlane { nodes, pods };
        change(&mut plane);
        let now = "2026-11-24T10:00:00Z".parse().expect("a time");
        plane.trouble(now).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_control_plane_that_is_complete_and_of_one_version_is_fine_with_or_without_static_pods() {
        assert_eq!(plane(|_| ()), [""; 0]);
        assert_eq!(plane(|plane| plane.pods.clear()), [""; 0], "k3s has none");
        // Stacked on one node, external on the other.
        assert_eq!(plane(|plane| drop(plane.pods.pop())), [""; 0]);
        // Of a worker, of a DaemonSet: neither is this control plane's.
        let other = json!({"metadata": {"name": "kube-proxy-n1", "namespace": "kube-system", "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "kube-proxy", "uid": "u"}]},
            "spec": {"nodeName": "n1"}, "status": {"phase": "Pending"}});
        let others = [
            pod("etcd", "worker", |pod| pod["status"] = json!({"phase": "Failed"})),
            serde_json::from_value(other).expect("a pod"),
        ];
        assert_eq!(plane(|plane| plane.pods.extend(others)), [""; 0]);
    }

    #[test]
    fn each_trouble_of_a_node_is_a_sentence_with_what_to_do() {
        assert_eq!(
            plane(|plane| plane.nodes.clear()),
            ["no node matches label_selector: set it to a label of the control-plane nodes"]
        );
        let changed = |change: Change| plane(|plane| plane.nodes[1] = node("n2", change));
        let unknown: Change = |node| {
            node["status"]["conditions"] =
                json!([{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]);
        };
        let table: [(Change, &str); 5] = [
            (unknown, "the node n2 is not Ready (NodeStatusUnknown): see `kubectl describe node n2`"),
            (
                |node| node["status"]["conditions"] = Value::Null,
                "the node n2 is not Ready (no condition): see `kubectl describe node n2`",
            ),
            (
                |node| node["spec"]["unschedulable"] = json!(true),
                "the node n2 is cordoned: `kubectl uncordon n2` once its maintenance is done",
            ),
            (
                |node| node["metadata"]["deletionTimestamp"] = json!("2026-11-24T09:00:00Z"),
                "the node n2 is being deleted: wait until it is gone",
            ),
            (
                |node| node["status"]["nodeInfo"]["kubeletVersion"] = json!("v1.36.1"),
                "an upgrade is in progress: finish it; the kubelet is v1.35.0 on n1, v1.36.1 on n2",
            ),
        ];
        for (change, sentence) in table {
            assert_eq!(changed(change), [sentence]);
        }
    }

    #[test]
    fn each_sign_of_a_rollout_in_static_pods_is_a_sentence() {
        let changed = |change: Change| plane(|plane| plane.pods[1] = pod("kube-apiserver", "n2", change));
        let describe = "see `kubectl -n kube-system describe pod kube-apiserver-n2`";
        let table: [(Change, String); 3] = [
            (
                |pod| pod["status"] = json!({"phase": "Pending"}),
                format!("kube-apiserver on n2 is not ready (Pending): {describe}"),
            ),
            (
                |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-24T10:00:30Z"),
                format!("kube-apiserver on n2 is not ready (being replaced): {describe}"),
            ),
            (
                |pod| pod["spec"]["containers"][0]["image"] = json!("k8s/x:v1.36.1"),
                "a rollout is in progress: finish it; kube-apiserver is k8s/x:v1.35.0 on n1, k8s/x:v1.36.1 on n2"
                    .to_owned(),
            ),
        ];
        for (change, sentence) in table {
            assert_eq!(changed(change), [sentence]);
        }
        let missing = plane(|plane| drop(plane.pods.remove(0)));
        assert_eq!(missing, ["kube-apiserver has no static pod on n1: it is being replaced, or its manifest is gone"]);
    }
}
