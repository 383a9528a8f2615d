//! Whom runs are told to: `notify:`. Beside the gates, whose keys for servers these are.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    AccessSettings, Problems,
    keys::{At, HttpKeys},
    raw::{BasicAuth, Tls},
};
use crate::core::time::Time;

/// As the gates'.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Each has a queue and a task of its own.
const MAX_TARGETS: usize = 20;

/// One target as it is written. Exactly one of the kinds is to be there.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyKeys {
    /// Unique; the metric label `target`.
    pub name: String,
    /// A kind: annotations of Grafana.
    pub grafana: Option<TargetKeys>,
    /// A kind: JSON to any address.
    pub webhook: Option<TargetKeys>,
}

/// How a target is reached.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TargetKeys {
    /// Grafana's base, or the webhook's whole address.
    pub url: String,
    /// `Authorization: Bearer …` with what the file holds.
    pub bearer_token_file: Option<PathBuf>,
    /// `Authorization: Basic …`.
    pub basic_auth: Option<BasicAuth>,
    /// Sent with what the files hold.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// TLS.
    #[serde(default)]
    pub tls: Tls,
    /// Of one attempt.
    pub timeout: Option<Time>,
}

/// What a target takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotifyKind {
    /// `POST /api/annotations`, when a run ends.
    Grafana,
    /// JSON, when a run starts and when it ends.
    Webhook,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NotifySettings {
    /// Unique.
    pub name: String,
    pub kind: NotifyKind,
    pub url: Url,
    pub access: AccessSettings,
    /// Of one attempt.
    pub timeout: Duration,
}

pub(in crate::config) fn list(raw: Vec<NotifyKeys>, problems: &mut Problems) -> Vec<NotifySettings> {
    if raw.len() > MAX_TARGETS {
        problems.add("notify", format!("has {} targets, and at most {MAX_TARGETS} are possible", raw.len()));
    }
    let mut names = BTreeSet::new();
    let mut found = Vec::new();
    for (index, keys) in raw.into_iter().enumerate() {
        let at = format!("notify[{index}]");
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if keys.name.is_empty() || !keys.name.chars().all(is_plain) {
            problems.add(format!("{at}.name"), "must be letters, digits, - and _: it is a metric's label");
        } else if !names.insert(keys.name.clone()) {
            problems.add(format!("{at}.name"), "is there twice");
        }
        match (keys.grafana, keys.webhook) {
            (Some(raw), None) => {
                found.extend(target(&format!("{at}.grafana"), keys.name, NotifyKind::Grafana, raw, problems));
            }
            (None, Some(raw)) => {
                found.extend(target(&format!("{at}.webhook"), keys.name, NotifyKind::Webhook, raw, problems));
            }
            _ => problems.add(at, "needs exactly one of grafana and webhook"),
        }
    }
    found
}

fn target(
    at: &str,
    name: String,
    kind: NotifyKind,
    raw: TargetKeys,
    problems: &mut Problems,
) -> Option<NotifySettings> {
    let mut at = At::new(at, problems);
    let url = at.url("url", &raw.url, kind == NotifyKind::Webhook);
    let timeout = at.timeout(raw.timeout, TIMEOUT);
    let keys = HttpKeys {
        headers: BTreeMap::new(),
        header_files: raw.header_files,
        bearer_token_file: raw.bearer_token_file,
        basic_auth: raw.basic_auth,
        tls: raw.tls,
    };
    let access = at.access(keys, url.as_ref());
    Some(NotifySettings { name, kind, url: url?, access, timeout })
}

#[cfg(test)]
mod tests {
    use crate::config::{Settings, raw};

    fn problems(notify: &str) -> Vec<String> {
        let text = format!("clusters: [{{name: a, endpoints: [\"http://127.0.0.1:1\"]}}]\nnotify:\n{notify}");
        let file = raw::parse(&text).expect("YAML with known keys");
        Settings::from_raw(file)
            .map_or_else(|error| error.to_string().lines().map(str::to_owned).collect(), |_| Vec::new())
    }

    #[test]
    fn good_targets_are_taken_and_mistakes_told_with_their_place() {
        let good = "- {name: graphs, grafana: {url: \"https://grafana.example.org/x\", bearer_token_file: t}}\n\
                    - {name: chat, webhook: {url: \"http://127.0.0.1:9/hook?room=1\", timeout: 2s}}\n";
        assert_eq!(problems(good), Vec::<String>::new());
        let table = [
            ("- {name: a}\n", "notify[0]: needs exactly one"),
            ("- {name: 'a b', webhook: {url: \"http://x/\"}}\n", "notify[0].name: must be"),
            ("- {name: a, webhook: {url: \"ftp://x/\"}}\n", "notify[0].webhook.url: must begin"),
            ("- {name: a, webhook: {url: \"http://u:p@x/\"}}\n", "notify[0].webhook.url: has a user"),
            ("- {name: a, grafana: {url: \"http://x/?token=1\"}}\n", "notify[0].grafana.url: has the parameter"),
            ("- {name: a, webhook: {url: \"http://x/\", timeout: 2h}}\n", "notify[0].webhook.timeout: is"),
        ];
        for (text, expected) in table {
            let found = problems(text);
            assert!(found.iter().any(|problem| problem.starts_with(expected)), "{text}: {found:?}");
        }
        let twice = "- {name: a, webhook: {url: \"http://x/\"}}\n- {name: a, webhook: {url: \"http://y/\"}}\n";
        assert_eq!(problems(twice), ["notify[1].name: is there twice"]);
    }
}
