//! Lasting problems with a cluster, each logged once when it begins and once when it is over; an unreachable cluster at
//! most once a minute. Members that are merely down are not among them: their metrics show that.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    time::Duration,
};

use bytesize::ByteSize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::log;
use crate::core::{
    cluster::{ClusterFacts, MemberFacts, MemberId, Unknown, UnknownKind},
    page,
};

const UNREACHABLE_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// The kinds of error that are logged, by what cannot be read. Each is logged once until that is read: a port that is not
/// etcd's, or a proxy, may give one error or the other.
type LoggedKinds<T, K> = BTreeMap<T, BTreeSet<K>>;

#[derive(Debug, Default)]
pub(super) struct ObservedProblems {
    /// The members, and as `None` the member list, that cannot be observed until an operator does something.
    unobserved: LoggedKinds<Option<MemberId>, UnknownKind>,
    /// The other entries of the configuration that lead to the same etcd cluster.
    same_as: Vec<String>,
    /// The members whose metrics page cannot be read, and whether the quota is known all the same.
    unread: LoggedKinds<MemberId, (UnknownKind, bool)>,
    /// The quotas that members report, where the configuration names another.
    quotas: BTreeMap<MemberId, ByteSize>,
    /// When it was last logged that no endpoint returns the member list, and whether that still holds.
    unreachable: Option<(Instant, bool)>,
    /// Versions of servers; each is checked once.
    versions: BTreeSet<String>,
}

impl ObservedProblems {
    /// Records which etcd cluster the endpoints lead to, and which other entries lead there, too.
    pub(super) fn leads_to(&mut self, cluster: &str, facts: &ClusterFacts, same_as: Vec<String>) {
        // Logged once, by the last of the entries.
        let is_last = !same_as.is_empty() && same_as.iter().all(|other| other.as_str() < cluster);
        if self.same_as != same_as && is_last {
            let (cluster_id, others) = (facts.cluster_id.to_string(), same_as.join(", "));
            warn!(
                cluster,
                others,
                cluster_id,
                "several entries of the configuration lead to the same etcd cluster: keep one of them"
            );
        }
        self.same_as = same_as;
        for status in facts.members.iter().filter_map(|member| member.status.as_ref().ok()) {
            if self.versions.insert(status.version.clone()) {
                log::version_warnings(cluster, &status.version);
            }
        }
    }

    /// Records an observation: why no endpoint returned the member list, and what each member answered.
    pub(super) fn record(&mut self, cluster: &str, listed: Option<&Unknown>, facts: Option<&ClusterFacts>) {
        let of_list = (None, "the member list".to_owned(), listed);
        let members = facts.iter().flat_map(|facts| &facts.members);
        let of_members =
            members.map(|MemberFacts { member, status, .. }| (Some(member.id), member.label(), status.as_ref().err()));
        for (id, who, unknown) in iter::once(of_list).chain(of_members) {
            match unknown {
                None if self.unobserved.remove(&id).is_some() => {
                    info!(cluster, who, "the cluster or member can be observed again");
                }
                Some(Unknown { kind, detail })
                    if needs_operator(*kind) && self.unobserved.entry(id).or_default().insert(*kind) =>
                {
                    warn!(cluster, who, reason = kind.label(), detail, "cannot observe the cluster or member");
                }
                _ => {}
            }
        }
        if let Some(facts) = facts {
            self.unobserved.retain(|id, _| id.is_none_or(|id| facts.member(id).is_some()));
            self.unread.retain(|id, _| facts.member(*id).is_some());
        }
    }

    /// Records whether an endpoint returned the member list. Logs it at most once a minute if none did. What needs an
    /// operator is logged by [`Self::record`].
    pub(super) fn reached(&mut self, cluster: &str, endpoints: &[String], listed: Option<&Unknown>) {
        let Some(unknown) = listed.filter(|unknown| !needs_operator(unknown.kind)) else {
            if let Some((_, still @ true)) = &mut self.unreachable {
                *still = false;
                info!(cluster, "the cluster is reachable again");
            }
            return;
        };
        if self.unreachable.is_none_or(|(logged, _)| logged.elapsed() >= UNREACHABLE_AGAIN_AFTER) {
            let (endpoints, reason) = (endpoints.join(","), unknown.kind.label());
            warn!(
                cluster,
                endpoints,
                reason,
                detail = unknown.detail,
                "the cluster is unreachable: no endpoint returns the member list"
            );
            self.unreachable = Some((Instant::now(), true));
        }
    }

    /// Records the results of the members' metrics pages, and the configured quota.
    pub(super) fn measured(&mut self, cluster: &str, facts: &ClusterFacts, configured: Option<ByteSize>) {
        for member in &facts.members {
            self.page(cluster, member);
            let reported = member.status.as_ref().ok().and_then(|status| status.quota);
            let Some((reported, configured)) = reported.zip(configured) else { continue };
            let id = member.member.id;
            if reported == configured {
                self.quotas.remove(&id);
            } else if self.quotas.insert(id, reported) != Some(reported) {
                let (name, reported, configured) = (member.member.label(), reported.0, configured.0);
                warn!(
                    cluster,
                    member = name,
                    reported,
                    configured,
                    "the member reports a quota that differs from the configuration, and its own is used: correct `quota`, or remove it"
                );
            }
        }
    }

    fn page(&mut self, cluster: &str, member: &MemberFacts) {
        let (id, name) = (member.member.id, member.member.label());
        match (&member.status, &member.gauges) {
            (Ok(status), Some(Err(unknown))) => {
                let is_new = self.unread.entry(id).or_default().insert((unknown.kind, status.quota.is_some()));
                if is_new && let Some(detail) = page::unread(member) {
                    warn!(cluster, member = name, detail, "cannot read the metrics page");
                }
            }
            (_, Some(Ok(_))) if self.unread.remove(&id).is_some() => {
                info!(cluster, member = name, "the metrics page can be read again");
            }
            _ => {}
        }
    }
}

fn needs_operator(kind: UnknownKind) -> bool {
    kind.is_denial() || matches!(kind, UnknownKind::Tls | UnknownKind::WrongMember)
}

#[cfg(test)]
#[path = "problems_tests.rs"]
pub(super) mod tests;
