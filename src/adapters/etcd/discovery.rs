//! Finds endpoints by SRV records, with etcdctl's names and meaning, and refreshes them.
//!
//! While the name servers do not answer, the last result is used.

use std::time::Duration;

use hickory_resolver::{TokioResolver, proto::rr::RData};
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

use super::names::Names;
use crate::{
    core::cluster::{Fact, Unknown, UnknownKind},
    ports::access::DiscoverySrv,
};

/// Records are changed by hand: one look-up in this time finds changes soon enough.
const RECHECK_AFTER: Duration = Duration::from_secs(30);
/// Leaves time for the members within a scrape.
const LIMIT: Duration = Duration::from_secs(2);

impl DiscoverySrv {
    /// The name that servers must prove, if it is not the one they are dialled by.
    pub(super) fn server_name(&self) -> Option<&str> {
        (!self.insecure).then_some(self.domain.as_str())
    }

    /// The records' full names, with the scheme that each means.
    fn services(&self) -> [(String, &'static str); 2] {
        let name = self.name.as_deref().map_or(String::new(), |name| format!("-{name}"));
        let domain = self.domain.trim_end_matches('.');
        let service = |service: &str| format!("_{service}{name}._tcp.{domain}.");
        [(service("etcd-client-ssl"), "https"), (service("etcd-client"), "http")]
    }

    async fn find(&self) -> Result<Vec<String>, String> {
        let resolver = Names { nameserver: self.nameserver }.resolver().map_err(|error| error.to_string())?;
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for (service, scheme) in self.services() {
            match look_up(&resolver, &service).await {
                Ok(targets) => found.extend(targets.into_iter().map(|target| format!("{scheme}://{target}"))),
                Err(failure) => failures.push(format!("{service}: {failure}")),
            }
        }
        if !self.insecure {
            found.retain(|url| url.starts_with("https://"));
        }
        if found.is_empty() && failures.is_empty() {
            return Err("the records have only endpoints without TLS, and insecure discovery is off".to_owned());
        }
        if found.is_empty() { Err(failures.join("; ")) } else { Ok(found) }
    }
}

/// `host:port` of each record, by priority. Weights do not matter: all are tried until one answers.
async fn look_up(resolver: &TokioResolver, service: &str) -> Result<Vec<String>, String> {
    let answer = resolver.srv_lookup(service.to_owned()).await.map_err(|error| error.to_string())?;
    let mut targets: Vec<_> = answer
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) => {
                let host = srv.target.to_utf8();
                // A single dot means that the service does not exist.
                let host = host.trim_end_matches('.');
                (!host.is_empty()).then(|| (srv.priority, format!("{host}:{}", srv.port)))
            }
            _ => None,
        })
        .collect();
    targets.sort();
    Ok(targets.into_iter().map(|(_, target)| target).collect())
}

/// The result, and when it was found.
#[derive(Debug)]
pub(super) struct Discovered {
    discovery: DiscoverySrv,
    last: AsyncMutex<Option<(Instant, Fact<Vec<String>>)>>,
}

impl Discovered {
    pub(super) fn new(discovery: DiscoverySrv) -> Self {
        Self { discovery, last: AsyncMutex::default() }
    }

    /// The last result, or a new one that is found within seconds.
    pub(super) async fn endpoints(&self) -> Fact<Vec<String>> {
        let mut last = self.last.lock().await;
        if let Some((at, Ok(found))) = &*last
            && at.elapsed() < RECHECK_AFTER
        {
            return Ok(found.clone());
        }
        let answer = timeout(LIMIT, self.discovery.find()).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
        let domain = &self.discovery.domain;
        let now = match (answer, last.take()) {
            (Ok(found), _) => Ok(found),
            (Err(detail), Some((_, Ok(before)))) => {
                tracing::warn!(domain, detail, "cannot look up the SRV records: using the last result");
                Ok(before)
            }
            (Err(detail), _) => Err(Unknown::new(
                UnknownKind::Unreachable,
                format!("no endpoints by SRV records of {domain}: {detail}"),
            )),
        };
        *last = Some((Instant::now(), now.clone()));
        now
    }

    /// None of the endpoints answers: the next call looks up again. The result stays, for name servers that do not
    /// answer either.
    pub(super) async fn doubt(&self) {
        if let Some((at, _)) = &mut *self.last.lock().await {
            *at = at.checked_sub(RECHECK_AFTER).unwrap_or(*at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_are_called_as_etcdctl_calls_them() {
        let mut discovery =
            DiscoverySrv { domain: "example.com".to_owned(), name: None, insecure: true, nameserver: None };
        let names = |discovery: &DiscoverySrv| discovery.services().map(|(name, scheme)| format!("{scheme} {name}"));
        assert_eq!(
            names(&discovery),
            ["https _etcd-client-ssl._tcp.example.com.", "http _etcd-client._tcp.example.com."]
        );
        assert_eq!(discovery.server_name(), None);
        discovery.name = Some("prod".to_owned());
        discovery.insecure = false;
        assert_eq!(names(&discovery)[0], "https _etcd-client-ssl-prod._tcp.example.com.");
        assert_eq!(discovery.server_name(), Some("example.com"));
    }
}
