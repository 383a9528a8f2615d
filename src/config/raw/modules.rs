//! `modules` as they are written.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Auth, Metrics, Size, Tls};

/// How `/probe` speaks to clusters that are not configured, and to which.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// Scheme of the client URLs. A target or member with the other scheme is refused.
    #[schemars(extend("default" = "https"))]
    pub scheme: Option<Scheme>,
    /// TLS to the members.
    #[serde(default)]
    pub tls: Tls,
    /// The etcd user.
    pub auth: Option<Auth>,
    /// Where the members serve their metrics, if their client URLs do not. Only hosts of `allowed_targets` are dialled.
    pub metrics: Option<Metrics>,
    /// The members' `--quota-backend-bytes`, for members that do not report it.
    #[schemars(with = "Option<Size>", extend("x-default" = "as reported by the member", "x-range" = ["1MiB", null]))]
    pub quota: Option<ByteSize>,
    /// What may be dialled: addresses, networks like `10.0.0.0/16`, names, and `*.etcd.example`. Networks match only
    /// targets that are written as addresses. The addresses that the members publish must be among them, too.
    #[serde(default)]
    #[schemars(extend("x-default" = "required"))]
    pub allowed_targets: Vec<String>,
    /// Client ports that may be dialled.
    #[schemars(extend("default" = [2379]))]
    pub allowed_ports: Option<Vec<u16>>,
}

/// Of a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// With TLS.
    #[default]
    Https,
    /// Without.
    Http,
}
