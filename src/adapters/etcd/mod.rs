//! [`Etcd`] over gRPC, with one connection a member.
//!
//! Never balances a call over several members: a maintenance call concerns the member that it was meant
//! for. Every answer's header is checked for the member's id, because a client URL in the member list is
//! only what somebody once configured.

mod advertised;
mod channel;
mod connect;
mod credentials;
mod denied;
mod discovery;
mod error;
mod gauges;
mod names;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytesize::ByteSize;
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, GetOptions, ResponseHeader};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{sleep, timeout},
};

pub use connect::ConnectError;
pub use credentials::CredentialFiles;
pub use discovery::Discovery;
pub use gauges::read as read_gauges;

use crate::{
    core::{
        cluster::{Alarm, AlarmKind, ClusterId, Fact, Gauges, Member, MemberId, Status, Unknown, UnknownKind},
        run::DefragError,
        verify::DataHash,
    },
    ports::etcd::{Etcd, Membership, Permit, Renewal, Visit},
};

use connect::{Connection, Line};
use discovery::Discovered;

/// How long one endpoint has for the member list before the next one is asked as well.
const NEXT_ENDPOINT_AFTER: Duration = Duration::from_millis(100);
/// How long a member has to say who it is right before Defragment is sent to it.
const IDENTITY_CHECK: Duration = Duration::from_secs(2);

/// Which URLs may be dialled; else the reason why not.
pub type Fence = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Where a cluster is, and with what it is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// URLs with a scheme.
    pub endpoints: Vec<String>,
    /// Finds more of them.
    pub discovery: Option<Discovery>,
    /// Read when it is opened, and again whenever somebody asks for it.
    pub files: CredentialFiles,
}

/// A connected cluster. Connections are made when first used, and kept.
pub struct EtcdCluster {
    sources: Sources,
    fence: Option<Fence>,
    discovered: Option<Discovered>,
    /// Swapped as a whole when the credentials change. Who is at work with the old one has it until the end: an RPC
    /// that is out goes on.
    connected: Mutex<Arc<Connected>>,
    learned_urls: Mutex<BTreeSet<String>>,
    /// Held while the files are read: a disk that hangs must not take one thread after the other.
    looking: Arc<AsyncMutex<()>>,
    /// Who is sent a Defragment by us now, and thus answers no login.
    defragmenting: Mutex<BTreeSet<MemberId>>,
}

/// The connections that were made with one version of the credentials.
struct Connected {
    connection: Connection,
    lines: Mutex<HashMap<String, Line>>,
}

impl Connected {
    fn new(sources: &Sources, credentials: credentials::Credentials) -> Result<Arc<Self>, ConnectError> {
        let connection = Connection::new(&sources.files, credentials, sources.discovery.as_ref())?;
        Ok(Arc::new(Self { connection, lines: Mutex::default() }))
    }

    async fn client(&self, url: &str) -> Fact<Client> {
        let kept = self.lines.lock().get(url).cloned();
        if let Some(line) = kept {
            return line.client().await;
        }
        // Boxed here and below: what is seldom under way, or not for long, would else be room in each look at each member.
        let line = Box::pin(self.connection.line(url)).await?;
        self.lines.lock().insert(url.to_owned(), line.clone());
        line.client().await
    }
}

impl EtcdCluster {
    /// Reads the files. Does not connect yet. Blocks.
    pub fn open(sources: Sources) -> Result<Self, ConnectError> {
        let connected = Connected::new(&sources, sources.files.read()?)?;
        Ok(Self {
            discovered: sources.discovery.clone().map(Discovered::new),
            sources,
            fence: None,
            connected: Mutex::new(connected),
            learned_urls: Mutex::default(),
            looking: Arc::default(),
            defragmenting: Mutex::default(),
        })
    }

    /// The same, and nothing outside of the fence is dialled, whatever the member list says.
    #[must_use]
    pub fn within(mut self, fence: Fence) -> Self {
        self.fence = Some(fence);
        self
    }

    fn is_within(&self, url: &str) -> Fact<()> {
        let Some(fence) = &self.fence else { return Ok(()) };
        fence(url).map_err(|why| Unknown::new(UnknownKind::Other, format!("{url} is not dialled: {why}")))
    }

    /// The configured endpoints.
    pub(in crate::adapters) fn endpoints(&self) -> &[String] {
        &self.sources.endpoints
    }

    /// A client for the member at this address, for others than the port's calls.
    pub(in crate::adapters) async fn client_at(&self, url: &str) -> Fact<Client> {
        self.is_within(url)?;
        self.connected().client(url).await
    }

    /// What such a client's call failed with, in words. One that was denied is not used again.
    pub(in crate::adapters) fn failed(&self, rpc: &str, url: &str, failure: &etcd_client::Error) -> Unknown {
        let unknown = self.told(rpc, failure);
        if unknown.kind.is_denial() {
            self.connected().lines.lock().remove(url);
        }
        unknown
    }

    fn connected(&self) -> Arc<Connected> {
        Arc::clone(&self.connected.lock())
    }

    async fn member_client(&self, member: &Member) -> Fact<Client> {
        let (url, connected) = (client_url(member)?, self.connected());
        self.is_within(url)?;
        // A login goes through raft, and hangs on a member that is being defragmented as all else does.
        let needs_login = connected.connection.credentials.user.is_some() && !connected.lines.lock().contains_key(url);
        if needs_login && self.defragmenting.lock().contains(&member.id) {
            let what = "it is being defragmented: not logging in through it";
            return Err(Unknown::new(UnknownKind::TimedOut, what));
        }
        connected.client(url).await
    }

    /// A failed RPC in words.
    fn told(&self, rpc: &str, failure: &etcd_client::Error) -> Unknown {
        error::unknown(rpc, &self.connected().connection.who, failure)
    }

    async fn members_from(&self, url: String) -> Fact<Membership> {
        let named = |unknown: Unknown| Unknown::new(unknown.kind, format!("{url}: {}", unknown.detail));
        self.is_within(&url).map_err(named)?;
        let connected = self.connected();
        let mut client = connected.client(&url).await.map_err(named)?.cluster_client();
        let response = Box::pin(client.member_list()).await.map_err(|error| {
            let unknown = self.told("MemberList", &error);
            if unknown.kind.is_denial() {
                connected.lines.lock().remove(&url);
            }
            named(unknown)
        })?;
        let cluster_id = response.header().map_or(0, ResponseHeader::cluster_id);
        let members = response.members().iter().map(|member| Member {
            id: MemberId(member.id()),
            name: member.name().to_owned(),
            client_urls: member.client_urls().to_vec(),
            is_learner: member.is_learner(),
        });
        let mut members: Vec<_> = members.collect();
        advertised::best_first(&mut members);
        Ok(Membership { cluster_id: ClusterId(cluster_id), members })
    }

    /// A client that is denied may be one from before authentication was switched on: the next use makes a
    /// new one, which logs in.
    fn forget_if_denied(&self, rpc: &str, member: &Member, failure: &etcd_client::Error) -> Unknown {
        let unknown = self.told(rpc, failure);
        if unknown.kind.is_denial() {
            let connected = self.connected();
            for url in &member.client_urls {
                connected.lines.lock().remove(url);
            }
        }
        unknown
    }

    /// Connections to addresses that the cluster no longer has are let go.
    fn learn(&self, membership: &Membership, endpoints: &[String]) {
        let told: BTreeSet<String> = membership.members.iter().flat_map(|member| member.client_urls.clone()).collect();
        let connected = self.connected();
        connected.lines.lock().retain(|url, _| told.contains(url) || endpoints.contains(url));
        *self.learned_urls.lock() = told;
    }

    /// The endpoints first, then the client URLs that the cluster itself has told.
    fn with_learned(&self, endpoints: &[String]) -> Vec<String> {
        let mut urls = endpoints.to_vec();
        urls.extend(self.learned_urls.lock().iter().filter(|url| !endpoints.contains(url)).cloned());
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
        let details: Vec<_> = failures.into_iter().map(|unknown| unknown.detail).collect();
        Err(Unknown::new(kind, details.join("; ")))
    }

    async fn status(&self, member: &Member) -> Fact<Status> {
        let mut client = self.member_client(member).await?.maintenance_client();
        let response =
            Box::pin(client.status()).await.map_err(|error| self.forget_if_denied("Status", member, &error))?;
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
            Err(error) => Err(self.told("a linearizable Range", &error)),
        }
    }

    async fn gauges(&self, member: &Member, visit: Visit) -> Fact<Gauges> {
        let url = client_url(member)?;
        self.is_within(url)?;
        Box::pin(gauges::fetch(self.connected().connection.http(url)?, url, visit)).await
    }

    async fn alarms(&self, via: &Member) -> Fact<Vec<Alarm>> {
        let mut client = self.member_client(via).await?;
        let all = AlarmOptions::new();
        let response = client
            .alarm(AlarmAction::Get, AlarmType::None, Some(all))
            .await
            .map_err(|error| self.told("Alarm", &error))?;
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
            .map_err(|error| self.told("Alarm (disarm)", &error))
    }

    async fn compact(&self, via: &Member, revision: u64) -> Fact<()> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        match self.member_client(via).await?.compact(revision, None).await {
            Ok(_) => Ok(()),
            Err(error) if error::is_compacted_already(&error) => Ok(()),
            Err(error) => Err(self.told("Compact", &error)),
        }
    }

    async fn move_leader(&self, leader: &Member, to: &Member) -> Fact<()> {
        let mut client = self.member_client(leader).await?;
        client.move_leader(to.id.0).await.map(|_| ()).map_err(|error| self.told("MoveLeader", &error))
    }

    async fn hash(&self, member: &Member, revision: u64) -> Fact<DataHash> {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        let mut client = self.member_client(member).await?.maintenance_client();
        let response = Box::pin(client.hash_kv(revision))
            .await
            .map_err(|error| self.forget_if_denied("HashKV", member, &error))?;
        check_identity(member, response.header())?;
        Ok(DataHash { hash: response.hash(), compact_revision: response.compact_version() })
    }

    async fn defragment(&self, member: &Member, permit: &dyn Permit) -> Result<(), DefragError> {
        // The last moment to notice that the address leads elsewhere, or that somebody else has begun:
        // `Status` hangs then. Nothing has been sent yet, so each of these is an answer, not a loss.
        let not_sent = DefragError::NotSent;
        timeout(IDENTITY_CHECK, self.status(member))
            .await
            .map_err(|_| not_sent(Unknown::timed_out("Status right before it", IDENTITY_CHECK)))?
            .map_err(not_sent)?;
        let mut client = self.member_client(member).await.map_err(not_sent)?;
        // Two seconds may have gone since the decision. What remains are the microseconds until the bytes are in the
        // kernel's hands: etcd's Defragment takes no token that would let the server refuse a former holder.
        if let Some(reason) = permit.refusal() {
            return Err(DefragError::Withheld(reason));
        }
        let who = self.connected().connection.who.clone();
        // Until the answer, or until the caller waits no longer: then the metrics page tells.
        let _marked = Marked::new(&self.defragmenting, member.id);
        client.defragment().await.map(|_| ()).map_err(|error| error::defrag(&who, &error))
    }

    async fn renew(&self) -> Renewal {
        if self.sources.files.is_empty() {
            return Renewal::Unchanged;
        }
        let Ok(only_look) = Arc::clone(&self.looking).try_lock_owned() else {
            return Renewal::Refused("the files cannot be read: the disk hangs".to_owned());
        };
        let (sources, in_use) = (self.sources.clone(), self.connected());
        // Files may be on a disk that hangs; what is read is parsed there, too.
        let looked = tokio::task::spawn_blocking(move || {
            let _only_look = only_look;
            let credentials = sources.files.read()?;
            let changed = credentials != in_use.connection.credentials;
            changed.then(|| Connected::new(&sources, credentials)).transpose()
        });
        match looked.await {
            Ok(Ok(None)) => Renewal::Unchanged,
            Ok(Ok(Some(new))) => {
                *self.connected.lock() = new;
                Renewal::Taken
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
