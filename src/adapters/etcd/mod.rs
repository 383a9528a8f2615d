//! [`Etcd`] over gRPC, with one connection per member.
//!
//! It never balances a call over several members: a maintenance call concerns exactly the member it is for. The header
//! of every answer is checked for the member's id, because a client URL in the member list is only what was once
//! configured and may be wrong.

mod advertised;
mod call;
mod channel;
mod connect;
mod credentials;
mod denied;
mod dial;
mod discovery;
mod error;
mod gauges;
mod handshake;
mod login;
mod names;
mod page;
mod sources;
mod unary;

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use etcd_client::{
    AlarmAction, AlarmOptions, AlarmResponse, AlarmType, Client, Error, GetOptions, HashKvResponse, ResponseHeader,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

pub use connect::ConnectError;
pub use credentials::CredentialFiles;
pub use gauges::read as read_gauges;
pub use sources::Sources;

use crate::{
    core::{
        cluster::{Alarm, AlarmKind, ClusterId, Fact, Gauges, Member, MemberId, Status, Unknown, UnknownKind},
        run::DefragError,
        verify::DataHash,
    },
    ports::etcd::{Etcd, Membership, Permit, Renewal, Visit},
};

use call::To;
use channel::{Link, Pipe};
use connect::Connection;
use discovery::Discovered;
use login::{Login, Logins};

/// How long one endpoint has for the member list before the next one is queried as well.
const NEXT_ENDPOINT_AFTER: Duration = Duration::from_millis(100);

/// Which URLs may be dialled; else the reason why not.
pub type Fence = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// A connected cluster. Connections are opened when first used, and kept.
pub struct EtcdCluster {
    sources: Sources,
    is_tls: bool,
    fence: Option<Fence>,
    page_fence: Option<Fence>,
    discovered: Option<Discovered>,
    /// Replaced as a whole when the credentials change. Calls in progress keep the old one until they end: an RPC that
    /// was sent continues.
    connected: Mutex<Arc<Connected>>,
    learned_urls: Mutex<BTreeSet<String>>,
    /// The URLs that work, for members whose first one does not.
    preferred: Mutex<HashMap<MemberId, String>>,
    /// Held while the files are read: a disk that hangs must not block one thread after the other.
    looking: Arc<AsyncMutex<()>>,
    /// The members to which we have sent a Defragment, and which thus answer no login.
    defragmenting: Mutex<BTreeSet<MemberId>>,
}

/// The connections that were made with one version of the credentials.
struct Connected {
    connection: Connection,
    /// How to connect to the metrics pages, if they are not at the client URLs.
    pages: Option<Arc<Connection>>,
    logins: Logins,
    links: Mutex<HashMap<String, Arc<Link>>>,
}

impl Connected {
    fn new(
        sources: &Sources,
        credentials: credentials::Credentials,
        pages: Option<Arc<Connection>>,
    ) -> Result<Arc<Self>, ConnectError> {
        let connection = Connection::new(&sources.files, credentials, sources)?;
        let logins = Logins::new(connection.credentials.user.clone(), connection.etcd_user.clone());
        Ok(Arc::new(Self { connection, pages, logins, links: Mutex::default() }))
    }

    /// The same with the current content of the files, if that has changed; and the problems with the files of the
    /// pages, which must not keep the cluster's own files from being loaded.
    fn renewed(&self, sources: &Sources) -> Result<(Option<Arc<Self>>, Option<ConnectError>), ConnectError> {
        let credentials = sources.files.read()?;
        let (pages, trouble) = match page::renewed(sources, self.pages.as_ref()) {
            Ok(pages) => (pages, None),
            Err(error) => (self.pages.clone(), Some(error)),
        };
        let same_pages = pages.as_ref().map(Arc::as_ptr) == self.pages.as_ref().map(Arc::as_ptr);
        let is_same = same_pages && self.connection.credentials == credentials;
        let new = if is_same { None } else { Some(Self::new(sources, credentials, pages)?) };
        Ok((new, trouble))
    }

    /// A connection to this address. Sends nothing of a call.
    async fn pipe(&self, url: &str) -> Fact<Pipe> {
        let kept = self.links.lock().get(url).cloned();
        let link = match kept {
            Some(link) => link,
            None => {
                let link = Arc::new(self.connection.link(url)?);
                Arc::clone(self.links.lock().entry(url.to_owned()).or_insert(link))
            }
        };
        let pipe = link.pipe().await;
        let connection = &self.connection;
        pipe.map_err(|failure| connection.hints.explain(error::unknown("", &connection.etcd_user, &failure.into())))
    }

    /// Records that a call failed; returns whether the login was the cause, and a new one may help.
    fn denied(&self, login: &Login, failure: &Error) -> bool {
        matches!(failure, Error::GRpcStatus(status) if self.logins.denied(login, status))
    }
}

impl EtcdCluster {
    /// Reads the files. Does not connect yet. Blocks.
    pub fn open(sources: Sources) -> Result<Self, ConnectError> {
        if sources.insecure_skip_verify && sources.files.user.is_some() {
            let what = "without verification, the password would be sent to any server: remove the user, or trust the \
            server's certificate with --cacert (tls.ca_file)";
            return Err(ConnectError::Tls(what.to_owned()));
        }
        let connected = Connected::new(&sources, sources.files.read()?, page::renewed(&sources, None)?)?;
        Ok(Self {
            is_tls: sources.is_tls(),
            discovered: sources.discovery.clone().map(Discovered::new),
            sources,
            fence: None,
            page_fence: None,
            connected: Mutex::new(connected),
            learned_urls: Mutex::default(),
            preferred: Mutex::default(),
            looking: Arc::default(),
            defragmenting: Mutex::default(),
        })
    }

    /// The same, but nothing outside of the fence is dialled, nor a metrics page outside of `pages`, whatever the
    /// member list says. Pages at the client URLs are covered by the first fence.
    #[must_use]
    pub fn within(mut self, fence: Fence, pages: Fence) -> Self {
        self.fence = Some(fence);
        self.page_fence = Some(pages);
        self
    }

    /// Whether this address may be dialled.
    pub(in crate::adapters) fn may_dial(&self, url: &str) -> Fact<()> {
        if self.is_tls && !url.starts_with("https://") {
            let detail = format!(
                "{url} is not dialled: this cluster is configured with TLS, but that URL is without; let the member publish \
                an https:// URL (its --advertise-client-urls)"
            );
            return Err(Unknown::new(UnknownKind::Tls, detail));
        }
        let Some(fence) = &self.fence else { return Ok(()) };
        fence(url).map_err(|why| Unknown::new(UnknownKind::Other, format!("{url} is not dialled: {why}")))
    }

    pub(in crate::adapters) fn endpoints(&self) -> &[String] {
        &self.sources.endpoints
    }

    /// A call to the member that answers at this address, for callers outside of the port.
    pub(in crate::adapters) async fn call_at<T, F>(&self, url: &str, rpc: &str, ask: impl Fn(Client) -> F) -> Fact<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.ask(To::Url(url), rpc, |_| None, ask).await
    }

    fn connected(&self) -> Arc<Connected> {
        Arc::clone(&self.connected.lock())
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

impl Etcd for EtcdCluster {
    async fn members(&self) -> Fact<Membership> {
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

    async fn status(&self, member: &Member) -> Fact<Status> {
        let (response, _) = Box::pin(self.status_on(member)).await?;
        Ok(Status {
            version: response.version().to_owned(),
            storage_version: Some(response.storage_version().to_owned()).filter(|version| !version.is_empty()),
            db_size: size(response.db_size()),
            db_size_in_use: size(response.raft_used_db_size()),
            // 0 if the server does not report it; negative if the quota is switched off.
            quota: Some(size(response.db_size_quota())).filter(|quota| quota.0 > 0),
            leader: Some(MemberId(response.leader())).filter(|leader| leader.0 != 0),
            revision: response.header().map_or(0, |header| u64::try_from(header.revision()).unwrap_or(0)),
            raft_term: response.raft_term(),
            raft_index: response.raft_index(),
            raft_applied_index: response.raft_applied_index(),
            is_learner: response.is_learner(),
            downgrade_to: response
                .downgrade_info()
                .filter(|downgrade| downgrade.enabled())
                .map(|downgrade| downgrade.target_version().to_owned()),
            errors: response.errors().to_vec(),
        })
    }

    async fn linearizable_read(&self, member: &Member) -> Fact<()> {
        let read = |mut client: Client| async move {
            // Any key will do: the read waits for the quorum whether the key exists or not.
            let read = GetOptions::new().with_count_only();
            match client.get("defragd/health", Some(read)).await {
                Ok(response) => Ok(Some(response)),
                // The permission is checked after the quorum has confirmed the read, so a denial proves health, too.
                Err(error) if error::is_permission_denied(&error) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.ask(To::Member(member), "a linearizable Range", |answer| answer.as_ref()?.header(), read).await.map(drop)
    }

    async fn gauges(&self, member: &Member, visit: Visit) -> Fact<Gauges> {
        let (connected, urls) = (self.connected(), self.urls(member)?);
        // The page is below the URL that works for calls, or at its host.
        let url = match &urls[..] {
            [only] => only,
            _ => Box::pin(self.reached(&connected, member)).await?.0,
        };
        let (Some(pages), Some(connection)) = (&self.sources.pages, &connected.pages) else {
            let page = format!("{}/metrics", url.trim_end_matches('/'));
            let fetched = gauges::fetch(connected.connection.http(url)?, &page, visit);
            let (gauges, whose) = Box::pin(fetched).await?;
            return if whose.is_none_or(|id| id == member.id) { Ok(gauges) } else { Err(gauges::wrong(&page, whose)) };
        };
        let page = page::url(pages, self.page_fence.as_ref(), url, member)?;
        let (gauges, whose) = Box::pin(gauges::fetch(connection.http(&page)?, &page, visit)).await?;
        // Several members may share a name, and other programs serve metrics, too.
        if whose == Some(member.id) { Ok(gauges) } else { Err(gauges::wrong(&page, whose)) }
    }

    fn quota_override(&self) -> Option<ByteSize> {
        self.sources.quota
    }

    async fn alarms(&self, via: &Member) -> Fact<Vec<Alarm>> {
        let list = |mut client: Client| async move {
            client.alarm(AlarmAction::Get, AlarmType::None, Some(AlarmOptions::new())).await
        };
        let response = self.ask(To::Member(via), "Alarm", AlarmResponse::header, list).await?;
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
        let disarm = |mut client: Client| async move {
            let mut options = AlarmOptions::new();
            options.with_member(alarm.member.map_or(0, |member| member.0));
            client.alarm(AlarmAction::Deactivate, kind, Some(options)).await
        };
        self.act(via, "Alarm (disarm)", disarm).await.map(drop)
    }

    async fn compact(&self, via: &Member, revision: u64) -> Fact<()> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        let compact = |mut client: Client| async move {
            match client.compact(revision, None).await {
                Err(error) if error::is_compacted_already(&error) => Ok(()),
                answer => answer.map(drop),
            }
        };
        self.act(via, "Compact", compact).await
    }

    async fn move_leader(&self, leader: &Member, to: &Member) -> Fact<()> {
        let to = to.id.0;
        let transfer = |mut client: Client| async move { client.move_leader(to).await };
        self.act(leader, "MoveLeader", transfer).await.map(drop)
    }

    async fn hash(&self, member: &Member, revision: u64) -> Fact<DataHash> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        let hash = |mut client: Client| async move { client.hash_kv(revision).await };
        let response = self.ask(To::Member(member), "HashKV", HashKvResponse::header, hash).await?;
        Ok(DataHash { hash: response.hash(), compact_revision: response.compact_version() })
    }

    async fn defragment(&self, member: &Member, permit: &dyn Permit) -> Result<(), DefragError> {
        let mut is_again = false;
        loop {
            // The last moment to notice that the address leads elsewhere, or that another client has begun: `Status`
            // hangs then. Nothing has been sent yet, so each of these is an answer, not a loss. The RPC is sent on the
            // connection on which `Status` was answered, or not at all.
            let connected = self.connected();
            let (_, line) = self.identified(member).await.map_err(DefragError::NotSent)?;
            let mut client = call::client(&line.pipe, &line.login).await.map_err(DefragError::NotSent)?;
            // The decision may be two seconds old. What remains are the microseconds until the kernel has the bytes:
            // etcd's Defragment has no parameter that would let the server refuse a former holder.
            if let Some(reason) = permit.refusal() {
                return Err(DefragError::Withheld(reason));
            }
            // Until the answer, or until the caller stops waiting: then the metrics page shows the state.
            let marked = Marked::new(&self.defragmenting, member.id);
            let Err(failure) = client.defragment().await else { return Ok(()) };
            drop(marked);
            // On most releases, `Status` needs no login. If etcd does not know the login, it has not begun.
            if !connected.denied(&line.login, &failure) || is_again {
                return Err(error::defrag(&connected.connection.etcd_user, &failure));
            }
            is_again = true;
        }
    }

    async fn renew(&self) -> Renewal {
        let pages = self.sources.pages.as_ref();
        if self.sources.files.is_empty() && pages.is_none_or(|pages| page::files(pages, &self.sources.files).is_empty())
        {
            return Renewal::Unchanged;
        }
        let Ok(only_look) = Arc::clone(&self.looking).try_lock_owned() else {
            return Renewal::Refused("cannot read the files: the disk hangs".to_owned());
        };
        let (sources, in_use) = (self.sources.clone(), self.connected());
        // The files may be on a disk that hangs; they are also parsed on that thread.
        let looked = tokio::task::spawn_blocking(move || {
            let _only_look = only_look;
            in_use.renewed(&sources)
        });
        match looked.await {
            Ok(Ok((new, trouble))) => {
                let renewal = match (&new, trouble) {
                    (_, Some(error)) => Renewal::Refused(format!("metrics pages: {error}")),
                    (Some(_), None) => Renewal::Applied,
                    (None, None) => Renewal::Unchanged,
                };
                if let Some(new) = new {
                    *self.connected.lock() = new;
                }
                renewal
            }
            Ok(Err(error)) => Renewal::Refused(error.to_string()),
            Err(error) => Renewal::Refused(error.to_string()),
        }
    }
}

/// A member is in the set for as long as this lives.
struct Marked<'a> {
    set: &'a Mutex<BTreeSet<MemberId>>,
    id: MemberId,
}

impl<'a> Marked<'a> {
    fn new(set: &'a Mutex<BTreeSet<MemberId>>, id: MemberId) -> Self {
        set.lock().insert(id);
        Self { set, id }
    }
}

impl Drop for Marked<'_> {
    fn drop(&mut self) {
        self.set.lock().remove(&self.id);
    }
}

fn size(bytes: i64) -> ByteSize {
    ByteSize(u64::try_from(bytes).unwrap_or(0))
}
