//! [`Etcd`] over gRPC, with one connection a member.
//!
//! Never balances a call over several members: a maintenance call concerns the member that it was meant
//! for. Every answer's header is checked for the member's id, because a client URL in the member list is
//! only what somebody once configured.

mod connect;
mod error;
mod gauges;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytesize::ByteSize;
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, GetOptions, ResponseHeader};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{sleep, timeout};

pub use connect::{ConnectError, Connection, TlsFiles};

use crate::{
    core::{
        cluster::{Alarm, AlarmKind, ClusterId, Fact, Gauges, Member, MemberId, Status, Unknown, UnknownKind},
        run::DefragError,
    },
    ports::etcd::{Etcd, Membership},
};

/// How long one endpoint has for the member list before the next one is asked as well.
const NEXT_ENDPOINT_AFTER: Duration = Duration::from_millis(100);
/// How long a member has to say who it is right before Defragment is sent to it.
const IDENTITY_CHECK: Duration = Duration::from_secs(2);

/// A connected cluster. Connections are made when first used, and kept.
pub struct EtcdCluster {
    connection: Connection,
    clients: Mutex<HashMap<String, Client>>,
    learned_urls: Mutex<BTreeSet<String>>,
}

impl EtcdCluster {
    /// A cluster behind the endpoints of `connection`. Does not connect yet.
    pub fn new(connection: Connection) -> Self {
        Self { connection, clients: Mutex::default(), learned_urls: Mutex::default() }
    }

    async fn client(&self, url: &str) -> Fact<Client> {
        if let Some(client) = lock(&self.clients).get(url) {
            return Ok(client.clone());
        }
        let client = self.connection.client(url).await?;
        lock(&self.clients).insert(url.to_owned(), client.clone());
        Ok(client)
    }

    async fn member_client(&self, member: &Member) -> Fact<Client> {
        self.client(client_url(member)?).await
    }

    async fn members_from(&self, url: String) -> Fact<Membership> {
        let named = |unknown: Unknown| Unknown::new(unknown.kind, format!("{url}: {}", unknown.detail));
        let mut client = self.client(&url).await.map_err(named)?;
        let response = client.member_list().await.map_err(|error| named(error::unknown(&error)))?;
        let cluster_id = response.header().map_or(0, ResponseHeader::cluster_id);
        let members = response.members().iter().map(|member| Member {
            id: MemberId(member.id()),
            name: member.name().to_owned(),
            client_urls: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        });
        Ok(Membership { cluster_id: ClusterId(cluster_id), members: members.collect() })
    }

    /// A client that is denied may be one from before authentication was switched on: the next use makes a
    /// new one, which logs in.
    fn forget_if_denied(&self, member: &Member, failure: &etcd_client::Error) -> Unknown {
        let unknown = error::unknown(failure);
        if unknown.kind == UnknownKind::Denied {
            for url in &member.client_urls {
                lock(&self.clients).remove(url);
            }
        }
        unknown
    }

    /// The configured endpoints first, then the client URLs that the cluster itself has told.
    fn discovery_urls(&self) -> Vec<String> {
        let mut urls = self.connection.endpoints().to_vec();
        urls.extend(lock(&self.learned_urls).iter().filter(|url| !self.connection.endpoints().contains(url)).cloned());
        urls
    }
}

impl Etcd for EtcdCluster {
    async fn members(&self) -> Fact<Membership> {
        let mut waiting = self.discovery_urls().into_iter();
        let mut asked = FuturesUnordered::new();
        let mut failures: Vec<Unknown> = Vec::new();
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
                    *lock(&self.learned_urls) =
                        membership.members.iter().flat_map(|member| member.client_urls.clone()).collect();
                    return Ok(membership);
                }
                Err(unknown) => failures.push(unknown),
            }
        }
        let kind = failures.first().map_or(UnknownKind::Other, |unknown| unknown.kind);
        let details: Vec<_> = failures.into_iter().map(|unknown| unknown.detail).collect();
        Err(Unknown::new(kind, details.join("; ")))
    }

    async fn status(&self, member: &Member) -> Fact<Status> {
        let response =
            self.member_client(member).await?.status().await.map_err(|error| self.forget_if_denied(member, &error))?;
        check_identity(member, response.header())?;
        Ok(Status {
            version: response.version().to_owned(),
            storage_version: Some(response.storage_version().to_owned()).filter(|version| !version.is_empty()),
            db_size: size(response.db_size()),
            db_size_in_use: size(response.raft_used_db_size()),
            // 0 where the server does not tell it; negative where the quota is switched off.
            quota: Some(size(response.db_size_quota())).filter(|quota| quota.0 > 0),
            leader: Some(MemberId(response.leader())).filter(|leader| leader.0 != 0),
            revision: response.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0)),
            raft_term: response.raft_term(),
            raft_index: response.raft_index(),
            raft_applied_index: response.raft_applied_index(),
            is_learner: response.is_learner(),
            errors: response.errors().to_vec(),
        })
    }

    async fn linearizable_read(&self, member: &Member) -> Fact<()> {
        // Any key does: the read waits for the quorum whether the key exists or not.
        let read = GetOptions::new().with_count_only();
        match self.member_client(member).await?.get("defragd/health", Some(read)).await {
            Ok(response) => check_identity(member, response.header()),
            // The permission is checked after the quorum has confirmed the read, so this is health too.
            Err(error) if error::is_permission_denied(&error) => Ok(()),
            Err(error) => Err(error::unknown(&error)),
        }
    }

    async fn gauges(&self, member: &Member) -> Fact<Gauges> {
        let url = client_url(member)?;
        gauges::fetch(self.connection.http(url), url).await
    }

    async fn alarms(&self, via: &Member) -> Fact<Vec<Alarm>> {
        let mut client = self.member_client(via).await?;
        let all = AlarmOptions::new();
        let response =
            client.alarm(AlarmAction::Get, AlarmType::None, Some(all)).await.map_err(|error| error::unknown(&error))?;
        let alarms = response.alarms().iter().filter_map(|alarm| {
            let kind = match alarm.alarm() {
                AlarmType::None => return None,
                AlarmType::Nospace => AlarmKind::NoSpace,
                AlarmType::Corrupt => AlarmKind::Corrupt,
            };
            Some(Alarm { kind, member: Some(MemberId(alarm.member_id())).filter(|member| member.0 != 0) })
        });
        Ok(alarms.collect())
    }

    async fn disarm(&self, via: &Member, alarm: Alarm) -> Fact<()> {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => AlarmType::Nospace,
            AlarmKind::Corrupt => AlarmType::Corrupt,
        };
        let mut options = AlarmOptions::new();
        options.with_member(alarm.member.map_or(0, |member| member.0));
        let mut client = self.member_client(via).await?;
        client
            .alarm(AlarmAction::Deactivate, kind, Some(options))
            .await
            .map(|_| ())
            .map_err(|error| error::unknown(&error))
    }

    async fn compact(&self, via: &Member, revision: u64) -> Fact<()> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        match self.member_client(via).await?.compact(revision, None).await {
            Ok(_) => Ok(()),
            Err(error) if error::is_compacted_already(&error) => Ok(()),
            Err(error) => Err(error::unknown(&error)),
        }
    }

    async fn move_leader(&self, leader: &Member, to: &Member) -> Fact<()> {
        let mut client = self.member_client(leader).await?;
        client.move_leader(to.id.0).await.map(|_| ()).map_err(|error| error::unknown(&error))
    }

    async fn defragment(&self, member: &Member) -> Result<(), DefragError> {
        // The last moment to notice that the address leads elsewhere, or that somebody else has begun:
        // `Status` hangs then. Nothing has been sent yet, so each of these is an answer, not a loss.
        let not_sent = DefragError::NotSent;
        timeout(IDENTITY_CHECK, self.status(member))
            .await
            .map_err(|_| not_sent(Unknown::timed_out("Status right before it", IDENTITY_CHECK)))?
            .map_err(not_sent)?;
        let mut client = self.member_client(member).await.map_err(not_sent)?;
        client.defragment().await.map(|_| ()).map_err(|error| error::defrag(&error))
    }
}

fn client_url(member: &Member) -> Fact<&str> {
    member.client_urls.first().map(String::as_str).ok_or_else(|| {
        Unknown::new(UnknownKind::Unreachable, "it has published no client URL: it was added but never started")
    })
}

fn check_identity(member: &Member, header: Option<&ResponseHeader>) -> Fact<()> {
    let answered = MemberId(header.map_or(0, ResponseHeader::member_id));
    if answered == member.id {
        return Ok(());
    }
    let url = client_url(member)?;
    Err(Unknown::new(UnknownKind::WrongMember, format!("member {answered} answered at {url}, expected {}", member.id)))
}

fn size(bytes: i64) -> ByteSize {
    ByteSize(u64::try_from(bytes).unwrap_or(0))
}

// A panic elsewhere while the lock was held leaves a cache that is still whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
