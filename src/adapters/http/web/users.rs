//! Basic authentication against bcrypt hashes.
//!
//! A check takes a tenth of a second of a core by design. So checks run outside the event loop, a few at a time, and
//! their results are cached, without the passwords: only hashes. An unknown user is checked like a known one, or the
//! time would reveal which users exist.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use axum::http::HeaderValue;
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout};

use crate::ports::web::PasswordHash;

/// Password guesses must leave a core for the work.
pub(in crate::adapters::http) const MAX_CHECKS: usize = 2;
/// For all configurations together: checks of one that was replaced may still run.
static CHECKS: Semaphore = Semaphore::const_new(MAX_CHECKS);
/// A client that waits longer gets an answer that too many others are waiting.
pub(in crate::adapters::http) const MAX_WAIT: Duration = Duration::from_secs(5);
/// A few scrapers with their passwords, and the latest guesses.
const MAX_REMEMBERED: usize = 100;

type Key = [u8; SHA256_OUTPUT_LEN];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::adapters::http) enum Checked {
    /// A user with the right password.
    Known,
    Unknown,
    /// Too many are being checked.
    Busy,
}

pub(in crate::adapters::http) struct Users {
    hashes: BTreeMap<String, PasswordHash>,
    /// Used in place of the hash of an unknown user; the most expensive one.
    decoy: PasswordHash,
    results: Arc<Results>,
}

/// Separate, so that guesses cannot displace known users.
#[derive(Default)]
struct Results {
    known: Mutex<HashSet<Key>>,
    unknown: Mutex<HashSet<Key>>,
}

impl Users {
    pub(super) fn new(hashes: BTreeMap<String, PasswordHash>) -> Self {
        // `$2y$10$…`: with the same prefix, the order of text is the order of cost.
        let decoy = hashes.values().max_by_key(|hash| hash.0.get(4..6).map(str::to_owned)).cloned();
        Self { hashes, decoy: decoy.unwrap_or_else(|| PasswordHash(String::new())), results: Arc::default() }
    }

    /// Checks an `Authorization` header.
    pub(in crate::adapters::http) async fn check(&self, shown: Option<&HeaderValue>) -> Checked {
        let Some((user, password)) = shown.and_then(credentials) else { return Checked::Unknown };
        let found = self.hashes.get(&user);
        let (is_user, hash) = (found.is_some(), found.unwrap_or(&self.decoy).0.clone());
        let key = key(&user, &hash, &password);
        let results = Arc::clone(&self.results);
        if results.known.lock().contains(&key) {
            return Checked::Known;
        }
        if results.unknown.lock().contains(&key) {
            return Checked::Unknown;
        }
        let Ok(Ok(permit)) = timeout(MAX_WAIT, CHECKS.acquire()).await else { return Checked::Busy };
        // It ends even if the client leaves: a scraper whose timeout is shorter than the check finds its result next time.
        let checked = tokio::task::spawn_blocking(move || {
            let right = bcrypt::verify(password, &hash).unwrap_or(false) && is_user;
            remember(&mut if right { &results.known } else { &results.unknown }.lock(), key);
            drop(permit);
            right
        });
        if checked.await.unwrap_or(false) { Checked::Known } else { Checked::Unknown }
    }
}

fn remember(results: &mut HashSet<Key>, key: Key) {
    if results.len() >= MAX_REMEMBERED {
        // The set's order is random, so a random entry is dropped.
        if let Some(any) = results.iter().next().copied() {
            results.remove(&any);
        }
    }
    results.insert(key);
}

/// Each part is preceded by its length, so that different parts never give the same text.
fn key(user: &str, hash: &str, password: &[u8]) -> Key {
    let mut context = Context::new(&SHA256);
    for part in [user.as_bytes(), hash.as_bytes(), password] {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut key = [0; SHA256_OUTPUT_LEN];
    key.copy_from_slice(context.finish().as_ref());
    key
}

fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.as_bytes().split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded[..colon].to_vec()).ok()?;
    Some((user, decoded[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn header(user: &str, password: &str) -> HeaderValue {
        let encoded = STANDARD.encode(format!("{user}:{password}"));
        HeaderValue::from_str(&format!("Basic {encoded}")).expect("a header")
    }

    fn users() -> Users {
        let hash = |password: &str, cost| PasswordHash(bcrypt::hash(password, cost).expect("a hash"));
        Users::new([("ann".to_owned(), hash("p:w", 5)), ("bob".to_owned(), hash("other", 4))].into())
    }

    #[tokio::test]
    async fn only_a_user_with_their_own_password_is_known() {
        let users = users();
        for _ in 0..2 {
            assert_eq!(users.check(Some(&header("ann", "p:w"))).await, Checked::Known);
            for (user, password) in [("ann", "other"), ("bob", "p:w"), ("eve", "p:w"), ("", ""), ("ann", "")] {
                assert_eq!(users.check(Some(&header(user, password))).await, Checked::Unknown, "{user} {password}");
            }
        }
        assert_eq!(users.check(None).await, Checked::Unknown);
        for bad in ["Basic", "Basic !!", "Bearer YW5uOnA6dw==", "Basic YW5u"] {
            assert_eq!(users.check(Some(&HeaderValue::from_static(bad))).await, Checked::Unknown, "{bad}");
        }
    }

    #[tokio::test]
    async fn an_unknown_user_is_checked_against_the_most_expensive_hash_and_guesses_are_forgotten() {
        let users = users();
        assert!(users.decoy.0.starts_with("$2b$05$"), "{}", users.decoy.0);
        assert_eq!(users.check(Some(&header("ann", "p:w"))).await, Checked::Known);
        for guess in 0..MAX_REMEMBERED + 20 {
            users.check(Some(&header("eve", &guess.to_string()))).await;
        }
        assert_eq!(users.results.unknown.lock().len(), MAX_REMEMBERED);
        assert_eq!(users.results.known.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_passwords_are_checked_at_once_whatever_the_configuration() {
        let (users, header) = (users(), header("ann", "p:w"));
        let others = CHECKS.acquire_many(u32::try_from(MAX_CHECKS).expect("few")).await.expect("open");
        assert_eq!(users.check(Some(&header)).await, Checked::Busy);
        drop(others);
        // Other tests of this process check passwords too, and the stopped clock does not wait for them.
        let checked = loop {
            match users.check(Some(&header)).await {
                Checked::Busy => tokio::task::yield_now().await,
                checked => break checked,
            }
        };
        assert_eq!(checked, Checked::Known);
    }

    #[tokio::test]
    async fn the_result_of_a_check_stays_if_the_client_leaves_before_it() {
        let (users, header) = (users(), header("ann", "p:w"));
        let found = async {
            // Each client leaves at once; the last one finds the result of an earlier one's check.
            while users.check(Some(&header)).now_or_never() != Some(Checked::Known) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_mins(1), found).await.expect("remembered");
    }
}
