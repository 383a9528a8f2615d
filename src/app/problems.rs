//! Lasting problems with a cluster, each logged once when it begins and once when it is over; an unreachable cluster at
//! most once a minute. Members that are merely down are not among them: their metrics show that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytesize::ByteSize;
use tokio::time::Instant;
use tracing::{info, warn};

use super::log;
use crate::core::{
    cluster::{ClusterFacts, MemberFacts, Unknown, UnknownKind},
    page,
};

const UNREACHABLE_AGAIN_AFTER: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
pub(super) struct ObservedProblems {
    /// What cannot be observed, and the kind of error.
    unobserved: BTreeMap<String, UnknownKind>,
    /// The other entries of the configuration that lead to the same etcd cluster.
    same_as: Vec<String>,
    /// The members whose metrics page cannot be read: the kinds of error that are logged, and whether the quota was known
    /// all the same.
    unread: BTreeMap<String, Vec<(UnknownKind, bool)>>,
    /// The quotas that members report, where the configuration names another.
    quotas: BTreeMap<String, ByteSize>,
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
        let members = facts.iter().flat_map(|facts| &facts.members);
        let of_members = members.filter_map(|facts| Some((facts.member.label(), facts.status.as_ref().err()?)));
        let of_list = listed.map(|unknown| ("the member list".to_owned(), unknown));
        let now: BTreeMap<String, &Unknown> =
            of_list.into_iter().chain(of_members).filter(|(_, unknown)| needs_operator(unknown.kind)).collect();
        for (who, unknown) in &now {
            if self.unobserved.get(who) != Some(&unknown.kind) {
                warn!(
                    cluster,
                    who,
                    reason = unknown.kind.label(),
                    detail = unknown.detail,
                    "cannot observe the cluster or member"
                );
            }
        }
        for who in self.unobserved.keys().filter(|who| !now.contains_key(*who)) {
            info!(cluster, who, "the cluster or member can be observed again");
        }
        self.unobserved = now.into_iter().map(|(who, unknown)| (who, unknown.kind)).collect();
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
            let (name, Some((reported, configured))) = (member.member.label(), reported.zip(configured)) else {
                continue;
            };
            if reported == configured {
                self.quotas.remove(&name);
            } else if self.quotas.insert(name.clone(), reported) != Some(reported) {
                let (reported, configured) = (reported.0, configured.0);
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
        let name = member.member.label();
        match (&member.status, &member.gauges) {
            (Ok(status), Some(Err(unknown))) => {
                let now = (unknown.kind, status.quota.is_some());
                let logged = self.unread.entry(name.clone()).or_default();
                // A port that is not etcd's gives one error or the other.
                if logged.contains(&now) {
                    return;
                }
                logged.push(now);
                if let Some(detail) = page::unread(member) {
                    warn!(cluster, member = name, detail, "cannot read the metrics page");
                }
            }
            (_, Some(Ok(_))) if self.unread.remove(&name).is_some() => {
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
