//! Shard flags of `defragd serve`; they override the file's key `shards`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::keys;

/// The names are those of kube-state-metrics.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Shards (override the file)")]
pub(super) struct ShardArgs {
    /// Which of the shards this process is, counted from 0: it watches only the clusters that belong to it
    #[arg(long = "shard", env = "DEFRAGD_SHARD", value_name = "ORDINAL")]
    shard: Option<u32>,
    /// How many processes divide the clusters of the configuration among themselves [default: 1]
    #[arg(long = "total-shards", env = "DEFRAGD_TOTAL_SHARDS", value_name = "NUMBER")]
    total_shards: Option<u32>,
    /// URL under which the shards reach each other, with {shard} in place of the ordinal; without it, alerts for other
    /// shards' clusters are answered with 503
    #[arg(long = "shards.url", env = "DEFRAGD_SHARDS_URL", value_name = "URL")]
    shards_url: Option<String>,
    /// File with the bearer token of the other shards' webhook
    #[arg(long = "shards.token-file", env = "DEFRAGD_SHARDS_TOKEN_FILE", value_name = "FILE")]
    shards_token_file: Option<PathBuf>,
}

impl ShardArgs {
    /// As keys of the file.
    pub(super) fn keys(&self) -> Map<String, Value> {
        keys::given([
            ("ordinal", json!(self.shard)),
            ("total", json!(self.total_shards)),
            ("url", json!(self.shards_url)),
            ("token_file", json!(self.shards_token_file.as_deref().map(keys::from_here))),
        ])
    }
}
