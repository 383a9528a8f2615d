//! One RPC, from the address to the answer. All RPCs are sent from here, so that the rules apply to all of them.
//!
//! Nothing is sent to an address outside of the configured scheme and the fence. A call that was not sent may be sent
//! on another connection; one that was sent is not sent again, unless etcd itself said that it does not know the login.
//! A call that changes a cluster is sent on a connection on which the intended member has answered before.

use std::{future::Future, time::Duration};

use etcd_client::{Client, Error, ResponseHeader, StatusResponse};
use tokio::time::timeout;

use super::{
    Connected, EtcdCluster,
    channel::{self, OnPipe, Pipe},
    error,
    login::Login,
    unary,
};
use crate::core::cluster::{Fact, Member, MemberId, Unknown, UnknownKind};

/// How long a member has to identify itself before a call that changes a cluster is sent to it.
const IDENTITY_CHECK: Duration = Duration::from_secs(2);
/// How long to wait for a connection to one of a member's URLs before the next one is tried.
const NEXT_URL_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
pub(super) enum To<'a> {
    /// The member that answers at this address, whichever it is.
    Url(&'a str),
    /// This member and no other.
    Member(&'a Member),
}

/// A connection, and the login used for calls on it.
pub(super) struct Line {
    pub(super) pipe: Pipe,
    pub(super) login: Login,
}

/// Why a call failed, and whether it may be repeated.
struct Failed {
    unknown: Unknown,
    not_sent: bool,
    login_unknown: bool,
}

/// How often a call may be repeated, for each cause.
#[derive(Default)]
struct Again {
    not_sent: bool,
    login_unknown: bool,
}

impl Again {
    fn allows(&mut self, failed: &Failed) -> bool {
        (failed.not_sent && !std::mem::replace(&mut self.not_sent, true))
            || (failed.login_unknown && !std::mem::replace(&mut self.login_unknown, true))
    }
}

/// Sends nothing. etcd-client's client consists of eight clients, some kilobytes: it is made for each call, because a
/// large fleet would otherwise keep many. The calls of every scrape do without ([`unary`]).
pub(super) async fn client(pipe: &Pipe, login: &Login) -> Fact<Client> {
    made(pipe.calls(login.token())).await.map_err(|failure| Unknown::new(UnknownKind::Other, error::chain(&failure)))
}

/// The call, with a client that is made for it.
async fn by_client<T, F>(calls: OnPipe, ask: impl Fn(Client) -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    ask(made(calls).await?).await
}

async fn made(calls: OnPipe) -> Result<Client, Error> {
    Client::from_channel(calls.into(), None).await
}

impl EtcdCluster {
    /// One RPC that changes no member: which one answered is checked afterwards, by `header`, if `to` is a member.
    pub(super) async fn ask<T, F>(
        &self,
        to: To<'_>,
        rpc: &str,
        header: fn(&T) -> Option<&ResponseHeader>,
        ask: impl Fn(Client) -> F,
    ) -> Fact<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        Ok(self.ask_on(to, rpc, header, |calls| by_client(calls, &ask)).await?.0)
    }

    /// The same, and the connection on which it was answered.
    pub(super) async fn ask_on<T, F>(
        &self,
        to: To<'_>,
        rpc: &str,
        header: fn(&T) -> Option<&ResponseHeader>,
        ask: impl Fn(OnPipe) -> F,
    ) -> Fact<(T, Line)>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut again = Again::default();
        loop {
            let connected = self.connected();
            let line = self.line(&connected, to).await?;
            match self.once(&connected, &line, rpc, &ask).await {
                Ok(answer) => {
                    if let (To::Member(member), Some(header)) = (to, header(&answer)) {
                        check_identity(member, &line.pipe, header)?;
                    }
                    return Ok((answer, line));
                }
                Err(failed) if again.allows(&failed) => {}
                Err(failed) => return Err(failed.unknown),
            }
        }
    }

    /// One RPC that changes something, on a connection on which the member has answered.
    pub(super) async fn act<T, F>(&self, member: &Member, rpc: &str, ask: impl Fn(Client) -> F) -> Fact<T>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut again = Again::default();
        loop {
            let connected = self.connected();
            let mut line = self.line(&connected, To::Member(member)).await?;
            if !line.pipe.leads_to(member.id) {
                (_, line) = self.identified(member).await?;
            }
            match self.once(&connected, &line, rpc, |calls| by_client(calls, &ask)).await {
                Ok(answer) => return Ok(answer),
                Err(failed) if again.allows(&failed) => {}
                Err(failed) => return Err(failed.unknown),
            }
        }
    }

    /// The member's `Status`, and the connection on which it was answered.
    pub(super) async fn identified(&self, member: &Member) -> Fact<(StatusResponse, Line)> {
        let status = Box::pin(self.status_on(member));
        timeout(IDENTITY_CHECK, status)
            .await
            .unwrap_or_else(|_| Err(Unknown::timed_out("Status right before it", IDENTITY_CHECK)))
    }

    pub(super) async fn status_on(&self, member: &Member) -> Fact<(StatusResponse, Line)> {
        let header = StatusResponse::header;
        let (status, line) = self.ask_on(To::Member(member), "Status", header, unary::status).await?;
        // Every answer of etcd has one.
        if status.header().is_none() { Err(wrong_member(member, MemberId(0), &line.pipe)) } else { Ok((status, line)) }
    }

    async fn once<T, F>(
        &self,
        connected: &Connected,
        line: &Line,
        rpc: &str,
        ask: impl Fn(OnPipe) -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, Error>>,
    {
        ask(line.pipe.calls(line.login.token())).await.map_err(|failure| Failed {
            unknown: connected.connection.hints.explain(error::unknown(rpc, &connected.connection.etcd_user, &failure)),
            not_sent: channel::was_not_sent(&failure),
            login_unknown: connected.denied(&line.login, &failure),
        })
    }

    async fn line(&self, connected: &Connected, to: To<'_>) -> Fact<Line> {
        let pipe = match to {
            To::Url(url) => {
                self.may_dial(url)?;
                connected.pipe(url).await?
            }
            To::Member(member) => self.reached(connected, member).await?.1,
        };
        let known = connected.logins.known();
        // A login goes through raft, and hangs like everything else on a member that is being defragmented.
        if let (None, To::Member(member)) = (&known, to)
            && self.defragmenting.lock().contains(&member.id)
        {
            let what = "it is being defragmented: not logging in through it";
            return Err(Unknown::new(UnknownKind::TimedOut, what));
        }
        let login = match known {
            Some(known) => known?,
            None => Box::pin(connected.logins.through(&pipe)).await?,
        };
        Ok(Line { pipe, login })
    }

    /// The URL that leads to a member, and a connection to it: the first that succeeds, in the order of [`Self::urls`].
    pub(super) async fn reached<'a>(&self, connected: &Connected, member: &'a Member) -> Fact<(&'a str, Pipe)> {
        let urls = self.urls(member)?;
        // Nearly all members have only one.
        let [others @ .., last] = &urls[..] else { return Err(never_started()) };
        let mut failures = Vec::new();
        for url in others {
            match timeout(NEXT_URL_AFTER, connected.pipe(url)).await {
                Ok(Ok(pipe)) => {
                    self.prefer(member, url);
                    return Ok((url, pipe));
                }
                Ok(Err(unknown)) => failures.push(format!("{url}: {}", unknown.detail)),
                Err(_) => failures.push(format!("{url}: no connection within {:.1} s", NEXT_URL_AFTER.as_secs_f64())),
            }
        }
        match connected.pipe(last).await {
            Ok(pipe) => {
                self.prefer(member, last);
                Ok((last, pipe))
            }
            Err(unknown) if failures.is_empty() => Err(unknown),
            Err(unknown) => {
                failures.push(format!("{last}: {}", unknown.detail));
                Err(Unknown::new(unknown.kind, failures.join("; ")))
            }
        }
    }

    /// The URLs of a member that may be dialled, the one that worked last first.
    pub(super) fn urls<'a>(&self, member: &'a Member) -> Fact<Vec<&'a str>> {
        let (mut urls, mut refused) = (Vec::with_capacity(1), Vec::new());
        for url in &member.client_urls {
            match self.may_dial(url) {
                Ok(()) => urls.push(url.as_str()),
                Err(unknown) => refused.push(unknown),
            }
        }
        if urls.len() > 1
            && let Some(preferred) = self.preferred.lock().get(&member.id)
        {
            urls.sort_by_key(|url| url != preferred);
        }
        if !urls.is_empty() {
            return Ok(urls);
        }
        let Some(first) = refused.first() else { return Err(never_started()) };
        let details: Vec<_> = refused.iter().map(|unknown| unknown.detail.as_str()).collect();
        Err(Unknown::new(first.kind, details.join("; ")))
    }

    /// Stored only for members whose first URL does not work.
    fn prefer(&self, member: &Member, url: &str) {
        if member.client_urls.len() < 2 {
            return;
        }
        let mut preferred = self.preferred.lock();
        if member.client_urls.iter().find(|url| self.may_dial(url).is_ok()).is_some_and(|first| first == url) {
            preferred.remove(&member.id);
        } else if preferred.get(&member.id).is_none_or(|known| known != url) {
            preferred.insert(member.id, url.to_owned());
        }
    }
}

fn never_started() -> Unknown {
    Unknown::new(UnknownKind::Unreachable, "it has published no client URL: it was added but never started")
}

fn check_identity(member: &Member, pipe: &Pipe, header: &ResponseHeader) -> Fact<()> {
    let answered = MemberId(header.member_id());
    pipe.answered_by(answered);
    if answered == member.id { Ok(()) } else { Err(wrong_member(member, answered, pipe)) }
}

fn wrong_member(member: &Member, answered: MemberId, pipe: &Pipe) -> Unknown {
    let detail = format!("member {answered} answered at {}, expected {}", pipe.url(), member.id);
    Unknown::new(UnknownKind::WrongMember, detail)
}
