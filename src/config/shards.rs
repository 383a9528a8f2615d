//! How clusters are divided among several processes that share one configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::Settings;
use crate::{
    core::{
        check::At,
        shard::{Shard, owner},
    },
    ports::access::TlsFiles,
};

const MAX_TOTAL: u32 = 1_000;
/// Stands for the ordinal in the URL.
const PLACEHOLDER: &str = "{shard}";

/// How clusters are divided among several processes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShardSettings {
    /// Which shard this process is, counted from 0. It differs in each process, so rather give `--shard` or
    /// `DEFRAGD_SHARD`.
    #[schemars(extend("x-default" = "0 with one shard, else required"))]
    pub ordinal: Option<u32>,
    /// How many shards there are. All processes must have the same number.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    pub total: u32,
    /// URL under which the shards reach each other, with `{shard}` in place of the ordinal, like
    /// `http://defragd-{shard}.defragd:9379`. A shard forwards alerts for clusters of another shard there.
    #[schemars(extend("x-default" = "none: such alerts are answered with 503"))]
    pub url: Option<String>,
    /// File with the token of the other shards' `--web.bearer-token-file`.
    #[schemars(extend("x-default" = "none"))]
    pub token_file: Option<PathBuf>,
    /// TLS to the other shards.
    pub tls: TlsFiles,
}

impl Default for ShardSettings {
    fn default() -> Self {
        Self { ordinal: None, total: 1, url: None, token_file: None, tls: TlsFiles::default() }
    }
}

impl ShardSettings {
    /// This process; `None` if it has all clusters.
    pub fn here(&self) -> Option<Shard> {
        let total = Some(self.total).filter(|total| *total > 1)?;
        self.ordinal.map(|ordinal| Shard { ordinal, total })
    }

    pub fn url_of(&self, ordinal: u32) -> Option<String> {
        self.url.as_ref().map(|url| url.replace(PLACEHOLDER, &ordinal.to_string()))
    }

    /// The ordinal of the shard that a cluster belongs to; `None` if the clusters are not divided.
    pub fn owner_of(&self, cluster: &str) -> Option<u32> {
        (self.total > 1).then(|| owner(cluster, self.total))
    }

    pub(super) fn check(&self, mut at: At<'_>) {
        if !(1..=MAX_TOTAL).contains(&self.total) {
            at.add("total", format!("is {}, but must be from 1 to {MAX_TOTAL}", self.total));
        } else if let Some(ordinal) = self.ordinal.filter(|ordinal| *ordinal >= self.total) {
            let total = self.total;
            let what = format!("is {ordinal}, but must be below the total of {total}: shards are counted from 0");
            at.add("ordinal", what);
        }
        if let Some(text) = &self.url {
            match self.url_of(0).map(|url| Url::parse(&url)) {
                _ if text.contains('@') || text.contains('?') => {
                    at.add("url", "must not contain a user, a password or a query");
                }
                Some(Ok(url)) if ["http", "https"].contains(&url.scheme()) && url.has_host() => {
                    if !text.contains(PLACEHOLDER) && self.total > 1 {
                        at.add("url", format!("needs {PLACEHOLDER} in place of the shard's ordinal"));
                    }
                }
                _ => at.add("url", format!("{text:?} is not a URL like http://defragd-{{shard}}.defragd:9379")),
            }
        }
        self.tls.check(at.key("tls"));
    }
}

impl Settings {
    /// Only this process's clusters; of the others, which alerts concern them. The error is for people.
    pub fn into_shard(mut self) -> Result<Self, String> {
        let Some(here) = self.shards.here() else {
            if self.shards.total > 1 {
                let total = self.shards.total;
                return Err(format!(
                    "the clusters are divided among {total} shards: pass --shard with the ordinal of this one"
                ));
            }
            return Ok(self);
        };
        let (own, elsewhere) = self.clusters.into_iter().partition(|cluster| here.owns(&cluster.name));
        let elsewhere: Vec<super::ClusterSettings> = elsewhere;
        self.clusters = own;
        self.elsewhere = elsewhere.iter().map(super::ClusterSettings::selector).collect();
        if let Some(Value::Array(clusters)) = self.redacted.get_mut("clusters") {
            clusters.retain(|cluster| cluster["name"].as_str().is_some_and(|name| here.owns(name)));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(shards: &str) -> Result<Settings, String> {
        let clusters: Vec<_> =
            ["prod-a", "prod-b", "events"].map(|name| format!("{{name: {name}, endpoints: ['{name}:1']}}")).into();
        let text = format!("clusters: [{}]\nshards: {shards}\n", clusters.join(", "));
        Settings::from_text(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_shard_keeps_its_clusters_and_knows_which_alerts_concern_the_others() {
        let all = |shards| read(shards).expect("valid").into_shard().expect("a shard");
        let names =
            |settings: &Settings| settings.clusters.iter().map(|cluster| cluster.name.clone()).collect::<Vec<_>>();
        let others = |settings: &Settings| settings.elsewhere.iter().map(|of| of.cluster.clone()).collect::<Vec<_>>();
        let one = all("{}");
        assert_eq!((names(&one).len(), others(&one).len()), (3, 0));
        let first = all("{ordinal: 0, total: 3}");
        assert_eq!((names(&first), others(&first)), (vec!["prod-b".into(), "events".into()], vec!["prod-a".into()]));
        assert_eq!(first.redacted["clusters"].as_array().map(Vec::len), Some(2), "{}", first.redacted);
        let last = all("{ordinal: 2, total: 3}");
        assert_eq!((names(&last), others(&last).len()), (vec!["prod-a".into()], 2));
        let empty = all("{ordinal: 1, total: 3}");
        assert_eq!((names(&empty).len(), others(&empty).len()), (0, 3), "a shard may have no cluster");
    }

    #[test]
    fn a_process_that_does_not_know_its_ordinal_takes_no_clusters() {
        let refused = read("{total: 3}").expect("valid in a shared file").into_shard().expect_err("which one?");
        assert!(refused.contains("3 shards") && refused.contains("--shard"), "{refused}");
    }

    #[test]
    fn bad_shards_are_found() {
        for (shards, expected) in [
            ("{total: 0}", "shards.total: is 0, but must be from 1 to 1000"),
            (
                "{total: 3, ordinal: 3}",
                "shards.ordinal: is 3, but must be below the total of 3: shards are counted from 0",
            ),
            ("{ordinal: 1}", "shards.ordinal: is 1, but must be below the total of 1"),
            ("{total: 2, url: 'http://defragd:9379'}", "shards.url: needs {shard} in place of the shard's ordinal"),
            ("{total: 2, url: 'defragd-{shard}:9379'}", "is not a URL like http://defragd-{shard}.defragd:9379"),
            ("{total: 2, url: 'http://a:b@x-{shard}'}", "shards.url: must not contain a user, a password or a query"),
        ] {
            let error = read(shards).expect_err(shards);
            assert!(error.contains(expected), "{shards}: {error}");
        }
    }

    #[test]
    fn the_url_of_a_shard_has_its_ordinal() {
        let settings = read("{total: 2, url: 'https://defragd-{shard}.defragd:9379/x'}").expect("valid").shards;
        assert_eq!(settings.url_of(1).as_deref(), Some("https://defragd-1.defragd:9379/x"));
    }
}
