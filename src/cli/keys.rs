//! Flags as keys of the file, which they override; and back again, for messages about them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::{ConfigError, Overrides, Problem};

/// Flags with other names than their keys. The keys of a cluster are without the cluster.
const NAMES: [(&str, &str); 16] = [
    ("name", "--cluster-name"),
    ("endpoints", "--endpoints"),
    ("discovery_srv.domain", "--discovery-srv"),
    ("discovery_srv.name", "--discovery-srv-name"),
    ("discovery_srv.insecure", "--insecure-discovery"),
    ("discovery_srv.nameserver", "--discovery-nameserver"),
    ("tls.ca_file", "--cacert"),
    ("tls.cert_file", "--cert"),
    ("tls.key_file", "--key"),
    ("auth.username", "--user"),
    ("auth.password_file", "--password-file"),
    ("lock.peers.token_file", "--lock.token-file"),
    ("shards.ordinal", "--shard"),
    ("shards.total", "--total-shards"),
    ("shards.url", "--shards.url"),
    ("shards.token_file", "--shards.token-file"),
];

/// Those that were given.
pub(super) fn given<const N: usize>(keys: [(&str, Value); N]) -> Map<String, Value> {
    keys.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// A flag's path is relative to the working directory, not to the file's.
pub(super) fn from_here(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The same error with the flags' own names where a flag set the value: all of them without a file, else those of `over`.
pub(super) fn as_flags(error: ConfigError, over: &Overrides, is_all: bool) -> ConfigError {
    let ConfigError::Invalid { path, problems } = error else { return error };
    let mut named: Vec<Problem> = Vec::new();
    for problem in problems {
        let key = without_cluster(&problem.at);
        let flag = flag_of(key, over).filter(|_| is_all || is_set(over, key));
        let what = with_flags(&problem.what, over, is_all);
        let problem = match flag {
            Some(flag) => Problem { at: flag, place: None, what },
            None => Problem { what, ..problem },
        };
        // A flag is for all clusters of the file.
        if !named.contains(&problem) {
            named.push(problem);
        }
    }
    let is_of_file = named.iter().any(|problem| !problem.at.starts_with("--"));
    ConfigError::Invalid { path: path.filter(|_| is_of_file), problems: named }
}

/// `policy.mode` of `clusters[2].policy.mode`.
fn without_cluster(at: &str) -> &str {
    at.strip_prefix("clusters[").and_then(|rest| rest.split_once("].")).map_or(at, |(_, key)| key)
}

fn flag_of(key: &str, over: &Overrides) -> Option<String> {
    // Of a list or of a mapping, such as `endpoints[1]` and `policy.compaction.older_than`.
    let is_within =
        |whole: &str| key.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']));
    if let Some((_, flag)) = NAMES.iter().find(|(name, _)| is_within(name)) {
        return Some((*flag).to_owned());
    }
    if let Some(name) = key.strip_prefix("lock.") {
        return ["kind", "ttl", "name", "url"].contains(&name).then(|| format!("--lock.{name}"));
    }
    let name = key.strip_prefix("policy.")?.split(['.', '[']).next()?;
    over.policy.contains_key(name).then(|| format!("--{}", name.replace('_', "-")))
}

/// Whether a flag set this key.
fn is_set(over: &Overrides, key: &str) -> bool {
    let groups = [("policy.", &over.policy), ("lock.", &over.lock), ("shards.", &over.shards)];
    groups.into_iter().any(|(group, keys)| {
        key.strip_prefix(group).and_then(|key| key.split(['.', '[']).next()).is_some_and(|name| keys.contains_key(name))
    })
}

/// A message with flags in place of the keys that it names. What people wrote is quoted in it, and stays as it is.
fn with_flags(what: &str, over: &Overrides, is_all: bool) -> String {
    let (mut text, mut rest) = (String::new(), what);
    while !rest.is_empty() {
        let (words, quoted) = rest.split_at(rest.find('"').unwrap_or(rest.len()));
        text += &words.split(' ').map(|word| word_as_flag(word, over, is_all)).collect::<Vec<_>>().join(" ");
        let (quoted, after) = quoted.split_at(end_of_quoted(quoted));
        text += quoted;
        rest = after;
    }
    text
}

/// Where the quoted text ends with which this begins.
fn end_of_quoted(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '"' && !is_escaped {
            return at + 1;
        }
        is_escaped = c == '\\' && !is_escaped;
    }
    text.len()
}

/// A word of a message that is the name of a key, with the marks of the sentence around it.
fn word_as_flag(word: &str, over: &Overrides, is_all: bool) -> String {
    let key = word.trim_start_matches('(').trim_end_matches([',', ';', ':', '.', ')']);
    if !key.contains(['_', '.']) {
        return word.to_owned();
    }
    let candidates = [key.to_owned(), format!("tls.{key}"), format!("policy.{key}")];
    let flag = candidates.iter().find_map(|key| flag_of(key, over).filter(|_| is_all || is_set(over, key)));
    flag.map_or_else(|| word.to_owned(), |flag| word.replacen(key, &flag, 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_of_a_flag_is_reported_with_the_flags_of_its_message() {
        let problem = |at: &str, what: &str| Problem { at: at.to_owned(), place: None, what: what.to_owned() };
        let error = |path: Option<&str>, problems: &[(&str, &str)]| ConfigError::Invalid {
            path: path.map(Into::into),
            problems: problems.iter().map(|(at, what)| problem(at, what)).collect(),
        };
        let rule = json!({ "rule": "size >", "compaction": { "older_than": "1s" } });
        let over = Overrides { policy: rule.as_object().cloned().unwrap_or_default(), ..Overrides::default() };

        let by_flags = error(
            None,
            &[
                ("clusters[0].tls.key_file", "is missing; it is required with cert_file"),
                ("clusters[0].endpoints[1]", "\"http://a:1\" begins with http://, but ca_file is set"),
                ("clusters[0].policy.compaction.older_than", "must be at least 1m (see keep_revisions)"),
            ],
        );
        assert_eq!(
            as_flags(by_flags, &over, true).to_string(),
            "--key: is missing; it is required with --cert\n\
            --endpoints: \"http://a:1\" begins with http://, but --cacert is set\n\
            --compaction: must be at least 1m (see keep_revisions)"
        );

        // What people wrote is not a key.
        let written = [
            ("clusters[0].name", "is \"a ca_file, tls.key_file\", but must be \"ca_file\\\" (ca_file\""),
            ("clusters[0].endpoints[0]", "cannot read /tls.ca_file: not found (see ca_file), tls.key_file."),
        ];
        assert_eq!(
            as_flags(error(None, &written), &over, true).to_string(),
            "--cluster-name: is \"a ca_file, tls.key_file\", but must be \"ca_file\\\" (ca_file\"\n\
            --endpoints: cannot read /tls.ca_file: not found (see --cacert), --key."
        );

        // Of two clusters of a file: the flag once, and what the file has as before.
        let twice = [("clusters[0].policy.rule", "bad"), ("clusters[1].policy.rule", "bad")];
        assert_eq!(as_flags(error(Some("c.yaml"), &twice), &over, false).to_string(), "--rule: bad");
        let both = [twice[0], ("clusters[1].policy.cooldown", "is above max_runs_per_day")];
        assert_eq!(
            as_flags(error(Some("c.yaml"), &both), &over, false).to_string(),
            "--rule: bad\nc.yaml: clusters[1].policy.cooldown: is above max_runs_per_day"
        );
    }
}
