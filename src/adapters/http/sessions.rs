//! The sessions of those who signed in on the page.
//!
//! A session is a random number in a cookie; the server keeps only a keyed hash of it, with its end. The key is
//! generated at start and never leaves the process, so a restart ends all sessions. The token that a form must contain
//! is another keyed hash of the same cookie: for visitors who only look, nothing is kept.

use std::{
    collections::BTreeMap,
    fmt::Write,
    time::{Duration, Instant},
};

use aws_lc_rs::{hmac, rand};
use parking_lot::Mutex;

use super::web::Bucket;
use crate::ports::web::RateLimit;

/// A working day.
pub(super) const LASTS: Duration = Duration::from_hours(8);
/// More than there are operators; beyond that, the session that expires first ends.
pub(super) const MAX_SESSIONS: usize = 256;
/// Wrong tokens: this many at once, then one per second. A token of 16 bytes or more cannot be guessed at that rate,
/// and a client that keeps the form busy on purpose does not affect the API.
pub(super) const WRONG_TRIES: RateLimit = RateLimit { interval: Duration::from_secs(1), burst: 10 };
/// Enough bytes that a number cannot be guessed.
pub(super) const ID_BYTES: usize = 32;

pub(super) struct Sessions {
    key: hmac::Key,
    open: Mutex<BTreeMap<Vec<u8>, Instant>>,
    names: Mutex<BTreeMap<Vec<u8>, OperatorName>>,
    wrong: Bucket,
}

/// The name that an operator entered with the first action of a browser session. It proves nothing.
struct OperatorName {
    ends: Instant,
    name: String,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random()),
            open: Mutex::default(),
            names: Mutex::default(),
            wrong: Bucket::new(WRONG_TRIES),
        }
    }
}

impl Sessions {
    /// Whether a wrong token may be tried now. If so, it counts as one.
    pub(super) fn may_try(&self) -> bool {
        self.wrong.allows(Instant::now())
    }

    /// Opens a session and returns its cookie's value.
    pub(super) fn open(&self, now: Instant) -> String {
        let id = new_id();
        let mut open = self.open.lock();
        open.retain(|_, ends| *ends > now);
        if open.len() >= MAX_SESSIONS
            && let Some(first) = open.iter().min_by_key(|(_, ends)| **ends).map(|(id, _)| id.clone())
        {
            open.remove(&first);
        }
        open.insert(self.hash("session", &id), now + LASTS);
        id
    }

    pub(super) fn close(&self, id: &str) {
        self.open.lock().remove(&self.hash("session", id));
        self.names.lock().remove(&self.hash("name", id));
    }

    /// Ends all of them: they were opened with a token that is no longer valid.
    pub(super) fn close_all(&self) {
        self.open.lock().clear();
    }

    pub(super) fn remember(&self, id: &str, name: String, now: Instant) {
        let mut names = self.names.lock();
        names.retain(|_, known| known.ends > now);
        if names.len() >= MAX_SESSIONS
            && let Some(first) = names.iter().min_by_key(|(_, known)| known.ends).map(|(id, _)| id.clone())
        {
            names.remove(&first);
        }
        names.insert(self.hash("name", id), OperatorName { ends: now + LASTS, name });
    }

    pub(super) fn name(&self, id: &str, now: Instant) -> Option<String> {
        let names = self.names.lock();
        names.get(&self.hash("name", id)).filter(|known| known.ends > now).map(|known| known.name.clone())
    }

    pub(super) fn is_open(&self, id: &str, now: Instant) -> bool {
        self.open.lock().get(&self.hash("session", id)).is_some_and(|ends| *ends > now)
    }

    pub(super) fn token(&self, id: &str) -> String {
        hex(&self.hash("form", id))
    }

    fn hash(&self, what: &str, id: &str) -> Vec<u8> {
        hmac::sign(&self.key, format!("{what}:{id}").as_bytes()).as_ref().to_vec()
    }
}

/// A number for a new cookie.
pub(super) fn new_id() -> String {
    hex(&random())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn random() -> [u8; ID_BYTES] {
    let mut bytes = [0; ID_BYTES];
    // The generator fails only if the system has no randomness at all; then it is unsafe to continue.
    #[expect(clippy::expect_used, reason = "see above")]
    rand::fill(&mut bytes).expect("the system gives random numbers");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_itself_and_their_number_is_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let first = sessions.open(now);
        assert!(sessions.is_open(&first, now) && !sessions.is_open("00", now));
        assert!(!sessions.is_open(&first, now + LASTS), "eight hours later");
        let others: Vec<_> = (1..=MAX_SESSIONS).map(|n| sessions.open(now + Duration::from_millis(n as u64))).collect();
        assert_eq!(sessions.open.lock().len(), MAX_SESSIONS);
        assert!(!sessions.is_open(&first, now) && others.iter().all(|id| sessions.is_open(id, now)));
        sessions.close_all();
        assert!(!others.iter().any(|id| sessions.is_open(id, now)), "the token has changed");
    }

    #[test]
    fn a_name_is_remembered_for_one_cookie_ends_by_itself_and_their_number_is_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        sessions.remember("a", "ann".to_owned(), now);
        assert_eq!((sessions.name("a", now).as_deref(), sessions.name("b", now)), (Some("ann"), None));
        assert_eq!(sessions.name("a", now + LASTS), None, "eight hours later");
        (1..=MAX_SESSIONS)
            .for_each(|n| sessions.remember(&n.to_string(), "x".to_owned(), now + Duration::from_millis(1)));
        assert_eq!(sessions.names.lock().len(), MAX_SESSIONS);
        assert_eq!(sessions.name("a", now), None);
        sessions.close("7");
        assert_eq!(sessions.name("7", now), None, "signing out forgets it");
        assert!(!sessions.is_open("8", now), "a name is not a session");
    }

    #[test]
    fn a_forms_token_is_of_one_cookie_and_one_process() {
        let (one, other) = (Sessions::default(), Sessions::default());
        assert_eq!(one.token("a"), one.token("a"));
        assert_ne!(one.token("a"), one.token("b"));
        assert_ne!(one.token("a"), other.token("a"));
        assert_ne!(one.hash("session", "a"), one.hash("form", "a"), "one does not reveal the other");
    }
}
