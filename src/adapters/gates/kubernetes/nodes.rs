//! The gate `kubernetes_nodes`: the control plane is complete, and nothing is being done to it. It lists nodes, and the
//! pods of the namespace kube-system that are labelled as part of the control plane; `control_plane` judges them.
//!
//! Before the run, what is found decides at once. After a member, the check is repeated for the grace period until it
//! passes: the API server and the kubelets depend on the etcd that was just defragmented.

use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{
    POLL,
    connect::Connection,
    control_plane::ControlPlane,
    error::ApiError,
    list::{Api, Listing, NODES, PODS},
};
use crate::{
    core::{gate::Moment, story},
    ports::gate::{CheckContext, GateProbe, KubernetesNodesGate, Reading},
};

/// kubeadm, RKE2 and Talos label their static pods with it.
const STATIC_PODS: &str = "tier=control-plane";
/// As many as fit in a line.
const MAX_SENTENCES: usize = 4;

impl KubernetesNodesGate {
    /// The limit within which a check ends by itself in any case.
    pub(in crate::adapters) fn limit(&self) -> Duration {
        // Two listings at a time; a pause as long as they took; and the last two.
        self.grace + 4 * self.timeout + POLL
    }
}

#[derive(Debug)]
pub struct NodesProbe {
    settings: KubernetesNodesGate,
}

impl NodesProbe {
    /// Nothing is read or sent before the first check.
    pub fn new(settings: KubernetesNodesGate) -> Self {
        Self { settings }
    }

    async fn look(&self, kept: &mut Option<Connection>) -> Result<ControlPlane, ApiError> {
        let KubernetesNodesGate { kubeconfig, context, label_selector, timeout, .. } = &self.settings;
        let api = Api { kubeconfig: kubeconfig.as_deref(), context: context.as_deref(), timeout: *timeout };
        let nodes = Listing {
            resource: NODES,
            collections: vec![("/api/v1/nodes".to_owned(), String::new())],
            label_selector: Some(label_selector),
            field_selector: None,
        };
        let pods = Listing {
            resource: PODS,
            collections: vec![(
                "/api/v1/namespaces/kube-system/pods".to_owned(),
                "in the namespace kube-system".to_owned(),
            )],
            label_selector: Some(STATIC_PODS),
            field_selector: None,
        };
        let nodes = api.list(kept, &nodes, Vec::new, Vec::push).await?;
        let pods = api.list(kept, &pods, Vec::new, Vec::push).await?;
        Ok(ControlPlane { nodes, pods })
    }
}

impl GateProbe for NodesProbe {
    fn check<'a>(&'a self, context: CheckContext<'a>) -> BoxFuture<'a, Reading> {
        Box::pin(async move {
            let grace = if context.moment == Moment::Before { Duration::ZERO } else { self.settings.grace };
            let (begin, mut kept) = (Instant::now(), None);
            loop {
                let look_begin = Instant::now();
                let reading = match self.look(&mut kept).await {
                    Ok(plane) => reading(&plane, Timestamp::now()),
                    Err(error) => Reading::fail(error.to_string()),
                };
                if reading.passed || begin.elapsed() >= grace {
                    return reading.with("waited_seconds", begin.elapsed().as_secs());
                }
                sleep(look_begin.elapsed().max(POLL.min(grace / 4))).await;
            }
        })
    }
}

fn reading(plane: &ControlPlane, now: Timestamp) -> Reading {
    let trouble: Vec<_> = plane.trouble(now).iter().map(ToString::to_string).collect();
    let (nodes, pods) = (plane.nodes.len(), plane.pods());
    let reading = if trouble.is_empty() {
        let (nodes, pods) = (story::count(nodes, "control-plane node"), story::count(pods, "static pod"));
        Reading::pass(format!("{nodes} Ready with kubelet {}; {pods} ready", plane.version()))
    } else {
        let more = trouble.len().saturating_sub(MAX_SENTENCES);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        let shown: Vec<_> = trouble.into_iter().take(MAX_SENTENCES).collect();
        Reading::fail(shown.join("; ") + &more)
    };
    reading.with("nodes", nodes).with("static_pods", pods)
}
