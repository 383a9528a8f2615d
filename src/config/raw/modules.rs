//! `modules` as they are written.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::{Auth, Metrics, Tls};

/// How `/probe` connects to clusters that are not configured, and to which.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// `https` (default) or `http`.
    pub scheme: Option<Scheme>,
    /// TLS files.
    #[serde(default)]
    pub tls: Tls,
    /// etcd's own users.
    pub auth: Option<Auth>,
    /// Metrics pages that are not at the client URLs.
    pub metrics: Option<Metrics>,
    /// The members' `--quota-backend-bytes`, if they do not report it.
    pub quota: Option<ByteSize>,
    /// Addresses, networks like `10.0.0.0/16`, names, or `*.etcd.example`.
    #[serde(default)]
    pub allowed_targets: Vec<String>,
    /// 2379 where absent.
    pub allowed_ports: Option<Vec<u16>>,
}

/// Of a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// With TLS.
    #[default]
    Https,
    /// Without.
    Http,
}
