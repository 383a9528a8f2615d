//! Shard flags of `defragd serve`; they override the file's key `shards`.

use serde_json::{Map, Value, json};

/// The names are those of kube-state-metrics.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Shards (override the file)")]
pub(super) struct ShardArgs {
    /// Which of the shards this process is, counted from 0: it watches only the clusters that belong to it
    #[arg(long = "shard", env = "DEFRAGD_SHARD", value_name = "ORDINAL")]
    shard: Option<u32>,
    /// How many processes divide the clusters of the configuration among themselves [default: 1]
    #[arg(long = "total-shards", env = "DEFRAGD_TOTAL_SHARDS", value_name = "NUMBER")]
    total_shards: Option<u32>,
}

impl ShardArgs {
    /// As keys of the file.
    pub(super) fn keys(self) -> Map<String, Value> {
        let keys = [("ordinal", self.shard), ("total", self.total_shards)];
        keys.into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?)))).collect()
    }
}
