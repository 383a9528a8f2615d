//! What an Alertmanager notification requests.
//!
//! Labels only select among the configured clusters: an address in a label is never used.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

pub use super::history::Labels;
use super::{
    history::{AlertKey, RunId},
    reason::Reason,
    wire,
};

/// A label of an alert that another replica or shard forwards: the name of the cluster that it concerns there.
pub const FORWARDED_CLUSTER: &str = "defragd_cluster";

/// A notification in the format of Alertmanager's webhook (version 4) and Grafana's. Fields that no decision depends on
/// are left out, and unknown ones ignored: the format grows.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Notification {
    /// The alerts of the group. A firing group may contain resolved ones.
    #[serde(deserialize_with = "wire::objects")]
    pub alerts: Vec<Alert>,
    /// How many alerts the sender omitted because of its limit.
    #[serde(rename = "truncatedAlerts", default)]
    pub truncated_alerts: u64,
    /// Whether another replica forwarded it: it names the cluster itself, and is not forwarded again.
    #[serde(skip)]
    pub forwarded: bool,
    /// The run of this replica that was to serve the alerts when another one offered them before. Without `forwarded`
    /// it counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_as: Option<RunId>,
    /// What to do with alerts for clusters of other shards.
    #[serde(skip)]
    pub foreign: ForeignAlerts,
}

/// What a shard does with an alert for another shard's cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ForeignAlerts {
    #[default]
    Forward,
    /// Refuses the notification: this shard has already forwarded it, so the two disagree on whose cluster it is.
    Refuse,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertStatus {
    Firing,
    Resolved,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Alert {
    /// Its own status, which may differ from its group's.
    pub status: AlertStatus,
    pub labels: Labels,
    #[serde(default)]
    pub annotations: Labels,
    #[serde(rename = "startsAt", deserialize_with = "starts_at")]
    pub starts_at: String,
    /// Alertmanager's hash of the labels. Senders before 0.14 have none.
    #[serde(default)]
    pub fingerprint: String,
}

fn starts_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<Timestamp>() {
        Ok(_) => Ok(text),
        Err(_) => Err(D::Error::custom(format!("startsAt {text:?} is not a time like 2026-11-23T10:00:00Z"))),
    }
}

impl Alert {
    pub fn of(key: AlertKey, status: AlertStatus) -> Self {
        let AlertKey { labels, starts_at, fingerprint, summary } = key;
        let annotations = Labels::from([("summary".to_owned(), summary)]);
        Self { status, labels, annotations, starts_at, fingerprint }
    }

    /// The same as it is forwarded: whatever its labels, it concerns this cluster.
    #[must_use]
    pub fn about(mut self, cluster: &str) -> Self {
        self.labels.insert(FORWARDED_CLUSTER.to_owned(), cluster.to_owned());
        self
    }

    /// Identifies this firing across repetitions and peers.
    pub fn key(&self) -> AlertKey {
        let own = || self.labels.iter().filter(|(name, _)| *name != FORWARDED_CLUSTER);
        let fingerprint = if self.fingerprint.is_empty() {
            own().map(|(name, value)| format!("{name}={value:?}")).collect::<Vec<_>>().join(",")
        } else {
            self.fingerprint.clone()
        };
        let summary = ["summary", "description", "message"].iter().find_map(|name| self.annotations.get(*name));
        AlertKey::new(fingerprint, &self.starts_at).described(own(), summary.map_or("", String::as_str))
    }
}

/// Which alerts concern a cluster: those that have all labels of any of the sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    pub cluster: String,
    pub any_of: Vec<Labels>,
}

impl Selector {
    fn selects(&self, labels: &Labels) -> bool {
        self.any_of.iter().any(|set| set.iter().all(|(name, value)| labels.get(name) == Some(value)))
    }
}

/// The one cluster that a forwarded alert concerns.
pub fn forwarded_target<'a>(alert: &Alert, selectors: &'a [Selector]) -> Result<&'a str, Reason> {
    let named = alert.labels.get(FORWARDED_CLUSTER).ok_or(Reason::UnknownCluster)?;
    let found = selectors.iter().find(|selector| selector.cluster == *named);
    found.map(|selector| selector.cluster.as_str()).ok_or(Reason::UnknownCluster)
}

/// The one cluster that an alert concerns, or why it is ignored.
pub fn target<'a>(alert: &Alert, selectors: &'a [Selector]) -> Result<&'a str, Reason> {
    let selected: Vec<&str> =
        selectors.iter().filter(|selector| selector.selects(&alert.labels)).map(|s| s.cluster.as_str()).collect();
    match selected[..] {
        [] => Err(Reason::UnknownCluster),
        [one] => Ok(one),
        _ => Err(Reason::AmbiguousCluster { clusters: selected.join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn alert(pairs: &[(&str, &str)]) -> Alert {
        Alert {
            status: AlertStatus::Firing,
            labels: labels(pairs),
            annotations: Labels::new(),
            starts_at: "2026-11-23T10:00:00Z".to_owned(),
            fingerprint: String::new(),
        }
    }

    #[test]
    fn labels_select_one_cluster_or_none() {
        let selectors = [
            Selector {
                cluster: "a".into(),
                any_of: vec![labels(&[("etcd_cluster", "a")]), labels(&[("job", "kube-etcd"), ("env", "a")])],
            },
            Selector { cluster: "b".into(), any_of: vec![labels(&[("etcd_cluster", "b")])] },
            Selector { cluster: "b2".into(), any_of: vec![labels(&[("etcd_cluster", "b")])] },
        ];
        let found = |pairs: &[(&str, &str)]| target(&alert(pairs), &selectors).map_err(|reason| reason.label());
        assert_eq!(found(&[("etcd_cluster", "a"), ("severity", "warning")]), Ok("a"));
        assert_eq!(found(&[("job", "kube-etcd"), ("env", "a")]), Ok("a"));
        assert_eq!(found(&[("job", "kube-etcd")]), Err("unknown_cluster"));
        assert_eq!(found(&[("etcd_cluster", "b")]), Err("ambiguous_cluster"));
        assert_eq!(found(&[]), Err("unknown_cluster"));
    }

    #[test]
    fn a_forwarded_alert_is_the_same_alert() {
        let own = alert(&[("etcd_cluster", "b")]);
        assert_eq!(own.clone().about("b").key(), own.key());
        assert_eq!(Alert::of(own.key(), AlertStatus::Firing).key(), own.key());
    }

    #[test]
    fn alerts_without_a_fingerprint_are_distinguished_by_their_labels() {
        assert_ne!(alert(&[("a", "1")]).key(), alert(&[("a", "2")]).key());
        assert_eq!(alert(&[("a", "1")]).key(), alert(&[("a", "1")]).key());
    }
}
