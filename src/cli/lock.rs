//! Lock flags, for clusters without a file; they override the file's key `lock`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::keys;
use crate::core::time::Time;

/// Lock keys that override those of the file.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Lock (overrides the file)")]
pub(super) struct LockArgs {
    /// Where replicas agree on which of them acts: none (there is one), etcd (in each cluster's own, or in the one
    /// that the file names), kubernetes (Leases) [default: none]
    #[arg(long = "lock.kind", env = "DEFRAGD_LOCK_KIND", value_parser = ["none", "etcd", "kubernetes"])]
    kind: Option<String>,
    /// How long a replica that is gone still holds the lock [default: 60s]
    #[arg(long = "lock.ttl", env = "DEFRAGD_LOCK_TTL", value_name = "TIME")]
    ttl: Option<Time>,
    /// This replica's name [default: the host name]
    #[arg(long = "lock.name", env = "DEFRAGD_LOCK_NAME", value_name = "NAME")]
    name: Option<String>,
    /// URL under which the other replicas reach this one, with its route prefix; without it, they cannot forward
    /// requests to it, and keep them until they hold the lock
    #[arg(long = "lock.url", env = "DEFRAGD_LOCK_URL", value_name = "URL")]
    url: Option<String>,
    /// File with the bearer token of the other replicas' webhook
    #[arg(long = "lock.token-file", env = "DEFRAGD_LOCK_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl LockArgs {
    /// As keys of the file.
    pub(super) fn keys(&self) -> Map<String, Value> {
        let token_file = self.token_file.as_deref().map(keys::from_here);
        keys::given([
            ("kind", json!(self.kind)),
            ("ttl", json!(self.ttl)),
            ("name", json!(self.name)),
            ("url", json!(self.url)),
            ("peers", token_file.map_or(Value::Null, |path| json!({ "token_file": path }))),
        ])
    }
}
