//! The login of a cluster's user: one for all of its members, since a token is valid for each of them.
//!
//! A login costs etcd a bcrypt and goes through raft. So it is kept until etcd no longer knows it, and a rejected one
//! is not repeated at every scrape.

use std::time::Duration;

use hyper::header::HeaderValue;
use jiff::{Timestamp, Unit};
use parking_lot::Mutex;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};
use tonic::Status;

use super::{
    channel::Pipe,
    denied::{self, EtcdUser},
    error,
};
use crate::core::{
    backoff,
    cluster::{Fact, Unknown, UnknownKind},
};

/// How long a call waits for a login that another call is making, possibly through a member that hangs.
const TURN: Duration = Duration::from_millis(500);
/// A denial makes a login of this age suspect: the user may have been deleted and created again.
const SUSPECT_AFTER: Duration = Duration::from_mins(1);

/// How calls to a cluster are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// No user is configured, or authentication is off.
    None,
    /// With this token, since then.
    Token(HeaderValue, Instant),
}

impl Login {
    pub(super) fn token(&self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Token(token, _) => Some(token.clone()),
        }
    }
}

#[derive(Default)]
enum LoginState {
    /// No login was made yet, or it was dropped.
    #[default]
    Unknown,
    /// The current authentication.
    Known(Login),
    /// The server rejected the name or the password this many times in a row.
    Rejected { times: usize, until: Instant, unknown: Unknown },
}

/// See the module. Holds the login for one version of the credentials.
pub(super) struct Logins {
    user: Option<(String, String)>,
    etcd_user: EtcdUser,
    state: Mutex<LoginState>,
    turn: AsyncMutex<()>,
}

impl Logins {
    pub(super) fn new(user: Option<(String, String)>, etcd_user: EtcdUser) -> Self {
        Self { user, etcd_user, state: Mutex::default(), turn: AsyncMutex::default() }
    }

    /// How calls are authenticated now, or why none is possible; `None` if a login is needed first.
    pub(super) fn known(&self) -> Option<Fact<Login>> {
        if self.user.is_none() {
            return Some(Ok(Login::None));
        }
        match &*self.state.lock() {
            LoginState::Known(login) => Some(Ok(login.clone())),
            LoginState::Rejected { until, unknown, .. } if Instant::now() < *until => Some(Err(unknown.clone())),
            LoginState::Unknown | LoginState::Rejected { .. } => None,
        }
    }

    /// Logs in through this connection, unless that is already done.
    pub(super) async fn through(&self, pipe: &Pipe) -> Fact<Login> {
        if let Some(known) = self.known() {
            return known;
        }
        let _turn = timeout(TURN, self.turn.lock()).await.ok();
        if let Some(known) = self.known() {
            return known;
        }
        let Some((name, password)) = &self.user else { return Ok(Login::None) };
        let mut client = super::call::client(pipe, &Login::None).await?.auth_client();
        let answer = client.authenticate(name.clone(), password.clone()).await;
        let login = match answer {
            Ok(answer) => {
                let mut token = HeaderValue::from_str(answer.token())
                    .map_err(|_| Unknown::new(UnknownKind::Other, "Authenticate: etcd returned an invalid token"))?;
                token.set_sensitive(true);
                Login::Token(token, Instant::now())
            }
            // Authentication was switched off, perhaps in an emergency: observing must continue.
            Err(failure) if error::is_auth_off(&failure) => {
                tracing::warn!(
                    user = name,
                    "authentication is off on this etcd: continuing without the configured user"
                );
                Login::None
            }
            Err(failure) => return Err(self.failed(error::unknown("Authenticate", &self.etcd_user, &failure))),
        };
        *self.state.lock() = LoginState::Known(login.clone());
        Ok(login)
    }

    /// Records a rejection, and says when the next attempt is.
    fn failed(&self, unknown: Unknown) -> Unknown {
        if unknown.kind != UnknownKind::LoginRefused {
            return unknown;
        }
        let mut state = self.state.lock();
        let before = match &*state {
            // Another call made the same attempt meanwhile: together they are one rejection.
            LoginState::Rejected { until, unknown, .. } if Instant::now() < *until => return unknown.clone(),
            LoginState::Rejected { times, .. } => *times,
            LoginState::Unknown | LoginState::Known(_) => 0,
        };
        // New credentials start over.
        let wait = backoff::retry_after(before);
        let at = (Timestamp::now() + wait).round(Unit::Second).unwrap_or_default();
        let detail = format!(
            "{}; the next login attempt is at {}, or when the password file changes",
            unknown.detail,
            at.strftime("%Y-%m-%d %H:%M:%S UTC")
        );
        let unknown = Unknown::new(unknown.kind, detail);
        *state = LoginState::Rejected { times: before + 1, until: Instant::now() + wait, unknown: unknown.clone() };
        unknown
    }

    /// Records that a call with this login was denied. Returns whether the same call may succeed with a new login: then
    /// the server did not know the login, and has not executed the call.
    pub(super) fn denied(&self, login: &Login, status: &Status) -> bool {
        if self.user.is_none() || !denied::kind(status).is_some_and(UnknownKind::is_denial) {
            return false;
        }
        let is_unknown = denied::is_unknown_login(status);
        let is_suspect = match login {
            Login::Token(_, since) => since.elapsed() >= SUSPECT_AFTER,
            Login::None => false,
        };
        let mut state = self.state.lock();
        // Unless another call has already made a new login.
        if (is_unknown || is_suspect) && matches!(&*state, LoginState::Known(known) if known == login) {
            *state = LoginState::Unknown;
        }
        is_unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logins() -> Logins {
        Logins::new(Some(("root".to_owned(), "secret".to_owned())), EtcdUser::default())
    }

    fn token(text: &'static str) -> Login {
        Login::Token(HeaderValue::from_static(text), Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_login_is_tried_again_after_1_5_15_and_60_minutes() {
        let logins = logins();
        for minutes in [1, 5, 15, 60, 60] {
            assert_eq!(logins.known(), None, "a login is due");
            let unknown = logins.failed(Unknown::new(UnknownKind::LoginRefused, "no"));
            assert!(unknown.detail.starts_with("no; the next login attempt is at 2"), "{unknown}");
            let same = logins.failed(Unknown::new(UnknownKind::LoginRefused, "no"));
            assert_eq!(same, unknown, "a second call that was making it at the same time counts as none");
            tokio::time::advance(Duration::from_secs(minutes * 60 - 1)).await;
            assert_eq!(logins.known(), Some(Err(unknown)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // A member that hangs or is down says nothing about the password.
        let away = Unknown::new(UnknownKind::Unreachable, "away");
        assert_eq!(logins.failed(away.clone()), away);
        assert_eq!(logins.known(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_is_dropped_when_etcd_no_longer_knows_it_and_by_the_call_that_used_it() {
        let logins = logins();
        let unknown = Status::invalid_argument("etcdserver: revision of auth store is old");
        let (old, new) = (token("old"), token("new"));
        *logins.state.lock() = LoginState::Known(old.clone());
        assert!(logins.denied(&old, &unknown));
        assert_eq!(logins.known(), None);
        *logins.state.lock() = LoginState::Known(new.clone());
        assert!(logins.denied(&old, &unknown), "a call with the old one may be made again");
        assert_eq!(logins.known(), Some(Ok(new.clone())), "with the new one, which stays");

        // A user without the role does not cause a login per call, and one that was deleted and created again is
        // detected.
        let denied = Status::permission_denied("etcdserver: permission denied");
        assert!(!logins.denied(&new, &denied));
        assert_eq!(logins.known(), Some(Ok(new.clone())));
        tokio::time::advance(SUSPECT_AFTER).await;
        assert!(!logins.denied(&new, &denied));
        assert_eq!(logins.known(), None);
    }

    #[test]
    fn what_is_no_denial_or_has_no_user_drops_nothing() {
        let logins = logins();
        let known = token("t");
        *logins.state.lock() = LoginState::Known(known.clone());
        assert!(!logins.denied(&known, &Status::unavailable("etcdserver: no leader")));
        assert_eq!(logins.known(), Some(Ok(known)));
        let nobody = Logins::new(None, EtcdUser::default());
        assert!(!nobody.denied(&Login::None, &Status::invalid_argument("etcdserver: user name is empty")));
        assert_eq!(nobody.known(), Some(Ok(Login::None)));
    }
}
