//! Who may act on a cluster, as one replica knows it: answers of the lock's store in, a state out.
//!
//! It is not enough that the lock was acquired once, it must certainly still be held: [`LockState::Held`] ends by itself at
//! a moment of the monotonic clock that is counted from when the renewal was *sent*, so that a process that was
//! suspended or cut off finds at its next check that it holds nothing. Times are durations since any fixed moment.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{cluster::Fact, reason::Reason};

/// How long a new holder waits before it acts. What the last holder sent may be in flight for 20 s (what is not
/// acknowledged to the kernel in that time is dropped, see `adapters/etcd/connect.rs`), after 5 s for making a
/// connection. Only after that does an observation of the members show everything that the last holder began.
pub const SETTLING: Duration = Duration::from_secs(30);
/// The validity ends this part of the TTL before the store may give the lock away: for clocks that run at different
/// speeds, and for the transmission of an RPC that is sent at the last moment.
const MARGIN_PART: u32 = 10;

/// Increases with each change of the holder; the journal records it for each run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A replica, as it describes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Unique among the replicas.
    pub name: String,
    /// Where the others reach its HTTP API, with its route prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// The store's answer, after it renewed our candidacy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    Held {
        term: Term,
        /// For this long after the renewal was sent, no other replica can acquire it.
        ttl: Duration,
    },
    Elsewhere {
        holder: Holder,
    },
}

/// What this replica knows of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    /// The store has not answered.
    Unknown {
        /// The error instead.
        detail: String,
    },
    Elsewhere {
        holder: Holder,
    },
    /// This replica holds it, until a moment.
    Held {
        term: Term,
        /// From here on another replica may hold it.
        until: Duration,
        /// From here on nothing of the last holder can be in flight any more.
        acts_from: Duration,
        /// Why the last renewal failed.
        renewal_error: Option<String>,
    },
}

/// Whether the lock was acquired or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockChange {
    Gained(Term),
    Lost(Term),
    /// Held or not held as before.
    Same,
}

impl LockState {
    /// Before the first answer.
    pub fn unknown() -> Self {
        Self::Unknown { detail: "its store has not answered yet".to_owned() }
    }

    /// Held forever: without a lock.
    pub fn always() -> Self {
        Self::Held { term: Term(0), until: Duration::MAX, acts_from: Duration::ZERO, renewal_error: None }
    }

    /// The state after the store answered, or did not. A store that does not answer changes nothing: the validity runs
    /// out by itself.
    #[must_use]
    pub fn heard(&self, sent_at: Duration, now: Duration, settling: Duration, answer: &Fact<LockAnswer>) -> Self {
        match answer {
            Ok(LockAnswer::Held { term, ttl }) => {
                let until = sent_at.saturating_add(ttl.saturating_sub(*ttl / MARGIN_PART));
                // Under the same term no other replica can have held it, even if the state was unknown for a while.
                let acts_from = match self {
                    Self::Held { term: before, acts_from, .. } if before == term => *acts_from,
                    _ => now.saturating_add(settling),
                };
                Self::Held { term: *term, until, acts_from, renewal_error: None }
            }
            Ok(LockAnswer::Elsewhere { holder }) => Self::Elsewhere { holder: holder.clone() },
            Err(unknown) => match self {
                Self::Held { term, until, acts_from, .. } => {
                    let renewal_error = Some(unknown.detail.clone());
                    Self::Held { term: *term, until: *until, acts_from: *acts_from, renewal_error }
                }
                _ => Self::Unknown { detail: unknown.detail.clone() },
            },
        }
    }

    /// The term, while this replica certainly holds the lock.
    pub fn held(&self, now: Duration) -> Option<Term> {
        match self {
            Self::Held { term, until, .. } if now < *until => Some(*term),
            _ => None,
        }
    }

    /// The term under which something may start now, or why nothing may.
    pub fn may_begin(&self, now: Duration) -> Result<Term, Reason> {
        match self {
            Self::Held { term, until, acts_from, .. } if now < *until => {
                let left = acts_from.saturating_sub(now);
                if left.is_zero() { Ok(*term) } else { Err(Reason::LockSettling { left }) }
            }
            Self::Held { .. } => Err(Reason::LockUnknown { detail: self.overdue() }),
            Self::Elsewhere { holder } => Err(Reason::LockHeldElsewhere { holder: holder.name.clone() }),
            Self::Unknown { detail } => Err(Reason::LockUnknown { detail: detail.clone() }),
        }
    }

    /// Why RPCs of what began under this term must not be sent any more.
    pub fn lost(&self, term: Term, now: Duration) -> Option<Reason> {
        let detail = match self {
            Self::Held { .. } if self.held(now) == Some(term) => return None,
            Self::Held { term: other, .. } if *other != term => {
                "it was lost and has been acquired again since".to_owned()
            }
            Self::Held { .. } => self.overdue(),
            Self::Elsewhere { holder } => format!("{} holds it", holder.name),
            Self::Unknown { detail } => detail.clone(),
        };
        Some(Reason::LockLost { detail })
    }

    /// When the state changes by itself.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        match self {
            Self::Held { until, acts_from, .. } => [acts_from, until].into_iter().find(|at| **at > now).copied(),
            _ => None,
        }
    }

    /// Whether the lock was acquired or lost between the two states, each at its time.
    pub fn change(before: Option<Term>, after: Option<Term>) -> LockChange {
        match (before, after) {
            (before, Some(term)) if before != Some(term) => LockChange::Gained(term),
            (Some(term), None) => LockChange::Lost(term),
            _ => LockChange::Same,
        }
    }

    fn overdue(&self) -> String {
        match self {
            Self::Held { renewal_error: Some(renewal_error), .. } => {
                format!("it could not be renewed in time: {renewal_error}")
            }
            _ => "it was not renewed in time; was this process or its machine suspended?".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Unknown, UnknownKind};

    const S: Duration = Duration::from_secs(1);

    #[expect(clippy::unnecessary_wraps, reason = "as the store answers")]
    fn won(term: u64) -> Fact<LockAnswer> {
        Ok(LockAnswer::Held { term: Term(term), ttl: S * 60 })
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the store answers")]
    fn elsewhere() -> Fact<LockAnswer> {
        Ok(LockAnswer::Elsewhere { holder: Holder { name: "b".to_owned(), url: None } })
    }

    fn silent() -> Fact<LockAnswer> {
        Err(Unknown::new(UnknownKind::TimedOut, "no answer"))
    }

    fn label(result: Result<Term, Reason>) -> Result<u64, &'static str> {
        result.map(|term| term.0).map_err(|reason| reason.label())
    }

    #[test]
    fn the_validity_counts_from_when_the_renewal_was_sent() {
        let state = LockState::unknown().heard(S * 100, S * 130, S * 30, &won(7));
        assert_eq!(state.held(S * 153), Some(Term(7)));
        assert_eq!(state.held(S * 154), None, "60 s after 100 s, less a tenth");
        let late = LockState::unknown().heard(S * 100, S * 155, S * 30, &won(7));
        assert_eq!(late.held(S * 155), None, "an answer that took longer than the validity is worth nothing");
    }

    #[test]
    fn a_new_term_waits_until_nothing_of_the_last_holder_is_on_its_way() {
        let first = LockState::unknown().heard(S, S, S * 30, &won(7));
        assert_eq!(label(first.may_begin(S * 30)), Err("lock_settling"));
        assert_eq!(label(first.may_begin(S * 31)), Ok(7));
        let renewed = first.heard(S * 40, S * 41, S * 30, &won(7));
        assert_eq!(label(renewed.may_begin(S * 41)), Ok(7), "a renewal is no new term");
        let anew = renewed.heard(S * 50, S * 51, S * 30, &elsewhere()).heard(S * 60, S * 61, S * 30, &won(9));
        assert_eq!(label(anew.may_begin(S * 62)), Err("lock_settling"));
        assert_eq!(anew.next(S * 62), Some(S * 91));
    }

    #[test]
    fn a_store_that_does_not_answer_takes_nothing_away_before_the_validity_ends() {
        let state = LockState::unknown().heard(S, S, S * 30, &won(7)).heard(S * 10, S * 12, S * 30, &silent());
        assert_eq!(label(state.may_begin(S * 54)), Ok(7));
        assert_eq!(label(state.may_begin(S * 55)), Err("lock_unknown"));
        assert!(state.may_begin(S * 55).is_err_and(|reason| reason.to_string().contains("no answer")));
        // The lease was still alive, and so was the term.
        let back = state.heard(S * 56, S * 57, S * 30, &won(7));
        assert_eq!(label(back.may_begin(S * 57)), Ok(7));
        assert_eq!(label(LockState::unknown().heard(S, S, S, &silent()).may_begin(S)), Err("lock_unknown"));
    }

    #[test]
    fn what_began_under_a_term_ends_with_it() {
        let state = LockState::unknown().heard(S, S, S * 30, &won(7));
        assert_eq!(state.lost(Term(7), S * 54), None);
        assert!(state.lost(Term(7), S * 55).is_some_and(|reason| reason.label() == "lock_lost"));
        let other = state.heard(S * 20, S * 20, S * 30, &elsewhere());
        assert!(other.lost(Term(7), S * 20).is_some_and(|reason| reason.to_string().contains("b holds it")));
        assert_eq!(label(other.may_begin(S * 20)), Err("lock_held_elsewhere"));
        let anew = other.heard(S * 30, S * 30, S * 30, &won(9));
        assert!(anew.lost(Term(7), S * 31).is_some(), "another may have acted in between");
        assert_eq!(anew.lost(Term(9), S * 31), None);
    }

    #[test]
    fn without_a_lock_everything_may_begin() {
        let state = LockState::always();
        assert_eq!(label(state.may_begin(Duration::ZERO)), Ok(0));
        assert_eq!(state.lost(Term(0), Duration::from_secs(u64::MAX)), None);
    }

    #[test]
    fn gains_and_losses_are_distinguished_from_renewals() {
        let table = [
            (None, None, LockChange::Same),
            (None, Some(7), LockChange::Gained(Term(7))),
            (Some(7), Some(7), LockChange::Same),
            (Some(7), Some(9), LockChange::Gained(Term(9))),
            (Some(7), None, LockChange::Lost(Term(7))),
        ];
        for (before, after, expected) in table {
            assert_eq!(LockState::change(before.map(Term), after.map(Term)), expected, "{before:?} {after:?}");
        }
    }
}
