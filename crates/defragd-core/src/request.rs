//! A request for a run: what made it, and the alerts behind it. [`super::history`] is the way to it.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use strum::IntoStaticStr;

/// The number of a run, given when its request is accepted. Never used twice in one journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub i64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What requested a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Trigger {
    Alert,
    /// An operator: `defragd run`, or `POST /api/v1/clusters/{name}/run`.
    Manual,
    /// A run was refused, and its alert still fires.
    Retry,
    /// A due time of the cluster's schedule.
    Schedule,
}

impl Trigger {
    /// All of them, so that counters can start at 0.
    pub const ALL: [Self; 4] = [Self::Alert, Self::Manual, Self::Retry, Self::Schedule];

    /// A stable label for metrics.
    pub fn label(self) -> &'static str {
        self.into()
    }
}

/// The labels of an alert.
pub type Labels = BTreeMap<String, String>;

/// The label with an alert's name.
const ALERT_NAME: &str = "alertname";

/// The fingerprint of due times. Alertmanager's are hexadecimal numbers.
const OF_SCHEDULE: &str = "schedule";

/// One firing of an alert, or one due time of a schedule: Alertmanager keeps fingerprint and start the same for all
/// repetitions and peers. These two alone identify it; what people read of it is not compared.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AlertKey {
    /// Alertmanager's hash of the labels.
    pub fingerprint: String,
    /// When it began to fire. Alertmanager writes `.12Z` in webhooks and `.120Z` in its API for the same time; here it
    /// is normalised. A text that is not a time is kept as it is.
    #[serde(deserialize_with = "one_spelling")]
    pub starts_at: String,
    /// Cut by [`AlertKey::described`]. Empty for a due time, for an alert from a journal of an earlier version, and for
    /// all but the first alerts of a request.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Its annotation `summary`, or the next best one; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

impl PartialEq for AlertKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for AlertKey {}

impl PartialOrd for AlertKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for AlertKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl AlertKey {
    /// Alerts of a request that are recorded with labels; an operator reads no more.
    pub const MOST_DESCRIBED: usize = 20;
    /// Labels of an alert that are recorded, and characters of a name, a value or a summary.
    const MOST_LABELS: usize = 20;
    const MOST_CHARS: usize = 200;

    /// A key whose time is normalised.
    pub fn new(fingerprint: String, starts_at: &str) -> Self {
        let starts_at = starts_at.parse::<Timestamp>().map_or_else(|_| starts_at.to_owned(), |at| at.to_string());
        Self { fingerprint, starts_at, labels: Labels::new(), summary: String::new() }
    }

    /// The same with what people read of it, cut to a bounded size. `alertname` is never left out.
    #[must_use]
    pub fn described<'a>(self, labels: impl IntoIterator<Item = (&'a String, &'a String)>, summary: &str) -> Self {
        let cut = |text: &str| text.chars().take(Self::MOST_CHARS).collect::<String>();
        let (name, others): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(label, _)| *label == ALERT_NAME);
        let kept = name.into_iter().chain(others).take(Self::MOST_LABELS);
        let labels = kept.map(|(label, value)| (cut(label), cut(value))).collect();
        Self { labels, summary: cut(summary), ..self }
    }

    /// The same without what people read of it.
    #[must_use]
    pub fn bare(&self) -> Self {
        Self { labels: Labels::new(), summary: String::new(), ..self.clone() }
    }

    /// The same alerts with at most as many described as a request that has these already has room for.
    pub fn described_within(alerts: Vec<Self>, before: &[Self]) -> Vec<Self> {
        let described = before.iter().filter(|key| key.is_described()).count();
        let mut room = Self::MOST_DESCRIBED.saturating_sub(described);
        let cut = |key: Self| {
            let keeps = room > 0;
            room -= usize::from(keeps && key.is_described());
            if keeps { key } else { key.bare() }
        };
        alerts.into_iter().map(cut).collect()
    }

    pub fn is_described(&self) -> bool {
        !self.labels.is_empty()
    }

    pub fn name(&self) -> Option<&str> {
        self.labels.get(ALERT_NAME).map(String::as_str)
    }

    fn identity(&self) -> (&str, &str) {
        (&self.fingerprint, &self.starts_at)
    }

    /// The key of a schedule's due time: the same on every replica.
    pub fn of_schedule(due: Timestamp) -> Self {
        Self::new(OF_SCHEDULE.to_owned(), &due.to_string())
    }

    /// The due time, if it is of a schedule.
    pub fn due(&self) -> Option<Timestamp> {
        (self.fingerprint == OF_SCHEDULE).then(|| self.starts_at.parse().ok()).flatten()
    }
}

/// Journals of earlier versions have times as Alertmanager wrote them.
fn one_spelling<'de, D: Deserializer<'de>>(source: D) -> Result<String, D::Error> {
    Ok(AlertKey::new(String::new(), &String::deserialize(source)?).starts_at)
}

/// A request for a run of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub cluster: String,
    pub trigger: Trigger,
    /// The alerts behind it, if any.
    pub alerts: Vec<AlertKey>,
    /// The members that the operator wants defragmented, by name or id; all of them if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
}

impl Request {
    /// Without alerts, for all members.
    pub fn new(cluster: impl Into<String>, trigger: Trigger) -> Self {
        Self { cluster: cluster.into(), trigger, alerts: Vec::new(), members: Vec::new() }
    }

    /// Makes it an operator's, who wants these members defragmented, or all of them if there are none. What its alerts
    /// want besides is left to the next run, unless an operator has requested or approved that, too.
    pub fn join_operators(&mut self, members: Vec<String>, is_approved: bool) {
        let covers_all = self.members.is_empty() && (self.trigger == Trigger::Manual || is_approved);
        if covers_all || members.is_empty() {
            self.members.clear();
        } else {
            let new: Vec<_> = members.into_iter().filter(|member| !self.members.contains(member)).collect();
            self.members.extend(new);
        }
        self.trigger = Trigger::Manual;
    }

    /// Adds alerts that it does not have yet.
    pub fn join(&mut self, alerts: Vec<AlertKey>) {
        for key in alerts {
            if !self.alerts.contains(&key) {
                self.alerts.push(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alertmanagers_two_spellings_of_a_time_are_one() {
        let key = |starts_at: &str| AlertKey::new("f".to_owned(), starts_at);
        assert_eq!(key("2026-11-23T10:00:00.12Z"), key("2026-11-23T10:00:00.120Z"));
        assert_eq!(key("2026-11-23T10:00:00Z"), key("2026-11-23T11:00:00.000+01:00"));
        assert_ne!(key("2026-11-23T10:00:00.12Z"), key("2026-11-23T10:00:00.121Z"));
        let journalled: AlertKey =
            serde_json::from_str(r#"{"fingerprint": "f", "starts_at": "2026-11-23T10:00:00.120Z"}"#).expect("a key");
        assert_eq!(journalled, key("2026-11-23T10:00:00.12Z"));
    }
}
