//! What stands between us and a cluster and does not pass by itself, each told in the log once when it begins and once
//! when it is over. Members that are merely away are not among it: their metrics tell.

use std::collections::BTreeMap;

use tracing::{info, warn};

use crate::core::cluster::{ClusterFacts, Unknown, UnknownKind};

/// Those of one cluster: who, and which kind.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<String, UnknownKind>);

impl Troubles {
    /// Takes what an observation brought: why no endpoint gave the member list, and what each member said.
    pub(super) fn saw(&mut self, cluster: &str, listed: Option<&Unknown>, facts: Option<&ClusterFacts>) {
        let members = facts.iter().flat_map(|facts| &facts.members);
        let of_members = members.filter_map(|facts| Some((facts.member.label(), facts.status.as_ref().err()?)));
        let of_list = listed.map(|unknown| ("the member list".to_owned(), unknown));
        let now: BTreeMap<String, &Unknown> =
            of_list.into_iter().chain(of_members).filter(|(_, unknown)| needs_a_person(unknown.kind)).collect();
        for (who, unknown) in &now {
            if self.0.get(who) != Some(&unknown.kind) {
                warn!(cluster, who, reason = unknown.kind.label(), detail = unknown.detail, "cannot observe it");
            }
        }
        for who in self.0.keys().filter(|who| !now.contains_key(*who)) {
            info!(cluster, who, "what kept it from being observed is over");
        }
        self.0 = now.into_iter().map(|(who, unknown)| (who, unknown.kind)).collect();
    }
}

fn needs_a_person(kind: UnknownKind) -> bool {
    kind.is_denial() || matches!(kind, UnknownKind::Tls | UnknownKind::WrongMember)
}
