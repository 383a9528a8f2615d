//! The member list: from the configured endpoints, and the client URLs that the cluster itself published.

use std::{collections::BTreeSet, time::Duration};

use etcd_client::ResponseHeader;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use super::{EtcdCluster, advertised, call::To, error, unary};
use crate::{
    core::cluster::{ClusterId, Fact, Member, MemberId, Unknown, UnknownKind},
    ports::etcd::Membership,
};

/// How long one endpoint has for the member list before the next one is queried as well.
const NEXT_ENDPOINT_AFTER: Duration = Duration::from_millis(100);

impl EtcdCluster {
    /// From any endpoint; the first answer wins.
    pub(super) async fn member_list(&self) -> Fact<Membership> {
        let mut failures: Vec<Unknown> = Vec::new();
        let mut endpoints = self.sources.endpoints.clone();
        if let Some(discovered) = &self.discovered {
            match discovered.endpoints().await {
                Ok(found) => endpoints.extend(found),
                Err(unknown) => failures.push(unknown),
            }
        }
        let mut waiting = self.with_learned(&endpoints).into_iter();
        let mut asked = FuturesUnordered::new();
        loop {
            if let Some(url) = waiting.next() {
                asked.push(self.members_from(url));
            }
            let answer = tokio::select! {
                Some(answer) = asked.next() => answer,
                () = sleep(NEXT_ENDPOINT_AFTER), if waiting.len() > 0 => continue,
                else => break,
            };
            match answer {
                Ok(membership) => {
                    self.learn(&membership, &endpoints);
                    return Ok(membership);
                }
                Err(unknown) => failures.push(unknown),
            }
        }
        if let Some(discovered) = &self.discovered {
            discovered.doubt().await;
        }
        let kind = failures.first().map_or(UnknownKind::Other, |unknown| unknown.kind);
        Err(Unknown::new(kind, error::together(&failures)))
    }

    async fn members_from(&self, url: String) -> Fact<Membership> {
        let named = |unknown: Unknown| Unknown::new(unknown.kind, format!("{url}: {}", unknown.detail));
        let response = match self.ask_on(To::Url(&url), "MemberList", |_| None, unary::member_list).await {
            Ok((response, _)) => response,
            Err(unknown) => return Err(named(self.connected().connection.diagnosed(&url, unknown).await)),
        };
        let cluster_id = response.header().map_or(0, ResponseHeader::cluster_id);
        let members = response.members().iter().map(|member| Member {
            id: MemberId(member.id()),
            name: member.name().to_owned(),
            client_urls: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        });
        let mut members: Vec<_> = members.collect();
        advertised::best_first(&mut members);
        for member in &mut members {
            // Addresses that are not dialled anyway come last.
            member.client_urls.sort_by_key(|url| self.may_dial(url).is_err());
        }
        Ok(Membership { cluster_id: ClusterId(cluster_id), members })
    }

    /// Closes the connections to addresses that the cluster no longer has.
    fn learn(&self, membership: &Membership, endpoints: &[String]) {
        let reported: BTreeSet<String> =
            membership.members.iter().flat_map(|member| member.client_urls.clone()).collect();
        let connected = self.connected();
        connected.links.lock().retain(|url, _| reported.contains(url) || endpoints.contains(url));
        self.preferred.lock().retain(|_, url| reported.contains(url));
        *self.learned_urls.lock() = reported;
    }

    /// The endpoints first, then the client URLs that the cluster itself published.
    fn with_learned(&self, endpoints: &[String]) -> Vec<String> {
        let mut urls = endpoints.to_vec();
        let learned = self.learned_urls.lock();
        urls.extend(learned.iter().filter(|url| !endpoints.contains(url) && self.may_dial(url).is_ok()).cloned());
        urls
    }
}
