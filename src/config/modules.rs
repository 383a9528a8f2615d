//! `modules`: how `/probe` connects to clusters that are not configured, and which addresses it may dial at all.
//!
//! Any client that reaches the port can name a target. So only what the module lists is allowed, including the
//! addresses of the members that the target reports. Networks are compared with addresses only, and names with names
//! only: names are not resolved for this check, because the result could change between the check and the connection.

use std::net::IpAddr;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;
use url::{Host, Url};

use super::cluster::check_quota;
use crate::{
    core::check::{At, Size, TEXT, read_from_text},
    ports::access::{MetricsPage, TlsFiles, User},
};

/// How much of a target is shown in an error.
const SHOWN_CHARS: usize = 100;

/// How `/probe` speaks to clusters that are not configured, and to which.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModuleSettings {
    /// Scheme of the client URLs. A target or member with the other scheme is refused.
    #[serde(default)]
    #[schemars(extend("default" = "https"))]
    pub scheme: Scheme,
    /// TLS to the members.
    #[serde(default)]
    pub tls: TlsFiles,
    /// The etcd user.
    pub auth: Option<User>,
    /// Where the members serve their metrics, if their client URLs do not. Only hosts of `allowed_targets` are dialled.
    pub metrics: Option<MetricsPage>,
    /// The members' `--quota-backend-bytes`, for members that do not report it.
    #[schemars(with = "Option<Size>", extend("x-default" = "as reported by the member", "x-range" = ["1MiB", null]))]
    pub quota: Option<ByteSize>,
    /// What may be dialled: addresses, networks like `10.0.0.0/16`, names, and `*.etcd.example`. Networks match only
    /// targets that are written as addresses. The addresses that the members publish must be among them, too.
    #[serde(default)]
    #[schemars(with = "Vec<String>", extend("x-default" = "required"))]
    pub allowed_targets: Vec<Pattern>,
    /// Client ports that may be dialled.
    #[serde(default = "client_port")]
    pub allowed_ports: Vec<u16>,
    /// Its name in `module=`.
    #[serde(skip)]
    pub name: String,
}

/// etcd's.
fn client_port() -> Vec<u16> {
    vec![2379]
}

/// Of a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// With TLS.
    #[default]
    Https,
    /// Without.
    Http,
}

/// What may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// An address, and how many of its bits are compared.
    Network(IpAddr, u8),
    Name(String),
    /// Names with this ending; begins with a dot.
    Below(String),
}

read_from_text!(Pattern, TEXT, Self::parse, || Self::Name(String::new()));

/// Why an address must not be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denied {
    /// It is not the address of a client port.
    #[error("{0}")]
    NotATarget(String),
    /// It is valid, but not allowed.
    #[error("{0}")]
    Outside(String),
}

/// An address that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAddress {
    /// With scheme and port.
    pub url: String,
    pub authority: String,
}

impl ModuleSettings {
    /// Parses `HOST:PORT` or a URL, and checks whether it may be dialled.
    pub fn target(&self, text: &str) -> Result<ProbeAddress, Denied> {
        let (url, authority) = self.parse(text)?;
        self.permits(&url)?;
        Ok(ProbeAddress { url: format!("{}://{authority}", self.scheme()), authority })
    }

    /// Whether a member's client URL may be dialled; if not, the reason.
    pub fn permits_url(&self, url: &str) -> Result<(), Denied> {
        self.target(url).map(drop)
    }

    /// Whether a metrics page may be dialled; if not, the reason. Its scheme and port come from the module's
    /// `metrics.url`, and its host may come from a member list.
    pub fn permits_page(&self, url: &str) -> Result<(), Denied> {
        let url = Url::parse(url).map_err(|error| Denied::NotATarget(format!("it is not an address ({error})")))?;
        self.permits_host(&url)
    }

    fn scheme(&self) -> &'static str {
        match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        }
    }

    /// The URL as the libraries below parse it, so that the checked address is the dialled one.
    fn parse(&self, text: &str) -> Result<(Url, String), Denied> {
        let scheme = self.scheme();
        let full = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
        let hint = format!("write it like 10.0.0.1:2379 or {scheme}://etcd-1.example:2379");
        let not_an_address = |error| Denied::NotATarget(format!("it is not an address ({error}); {hint}"));
        let url = Url::parse(&full).map_err(not_an_address)?;
        let bad = |what: String| Err(Denied::NotATarget(what));
        if url.scheme() != scheme {
            return bad(format!("its scheme is {}, but the module's is {scheme}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() || full.contains('@') {
            return bad("it contains a user: credentials belong to the module".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return bad(format!("it has more than a host and a port; {hint}"));
        }
        let written = full.split_once("://").map_or("", |(_, rest)| rest).trim_end_matches('/');
        // The text after an IPv6 address, or all of any other.
        let has_port = written.rsplit(']').next().is_some_and(|rest| rest.contains(':') && !rest.ends_with(':'));
        match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) if has_port && port != 0 => {
                let authority = format!("{host}:{port}");
                Ok((url, authority))
            }
            _ => bad(format!("it has no port; {hint}")),
        }
    }

    fn permits(&self, url: &Url) -> Result<(), Denied> {
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.allowed_ports.contains(&port) {
            let ports: Vec<_> = self.allowed_ports.iter().map(u16::to_string).collect();
            let why = format!("its port is not among the module's allowed_ports: {}", ports.join(", "));
            return Err(Denied::Outside(why));
        }
        self.permits_host(url)
    }

    fn permits_host(&self, url: &Url) -> Result<(), Denied> {
        let allowed = match url.host() {
            Some(Host::Domain(name)) => self.permits_name(name.trim_end_matches('.')),
            Some(Host::Ipv4(address)) => self.permits_address(address.into()),
            Some(Host::Ipv6(address)) => self.permits_address(address.to_canonical()),
            None => false,
        };
        let why = "its host is not among the module's allowed_targets";
        if allowed { Ok(()) } else { Err(Denied::Outside(why.to_owned())) }
    }

    fn permits_name(&self, name: &str) -> bool {
        self.allowed_targets.iter().any(|pattern| match pattern {
            Pattern::Network(..) => false,
            Pattern::Name(allowed) => allowed == name,
            Pattern::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
        })
    }

    fn permits_address(&self, address: IpAddr) -> bool {
        self.allowed_targets.iter().any(|pattern| match *pattern {
            Pattern::Network(network, bits) => first_bits(network, bits) == first_bits(address, bits),
            Pattern::Name(_) | Pattern::Below(_) => false,
        })
    }
}

/// The network of this many bits that contains an address; never equal between families.
fn first_bits(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            (bits <= 32).then(|| IpAddr::V4((address.to_bits() & mask).into()))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Some(IpAddr::V6((address.to_bits() & mask).into()))
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let hint = "write an address, a network like 10.0.0.0/16, a name, or *.etcd.example";
        let bad = |what: String| format!("{text:?} {what}");
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| bad(format!("is not a network; {hint}")))?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most);
            return bits
                .map(|bits| Self::Network(address, bits))
                .ok_or_else(|| bad(format!("needs a number of bits from 0 to {most} after its slash")));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
        // As in a URL: lower case, and no name that is an address in disguise.
        match Host::parse(name) {
            Ok(Host::Domain(name)) if !name.contains('*') && !name.is_empty() && !name.contains(':') => {
                let name = name.trim_end_matches('.').to_owned();
                Ok(if below { Self::Below(format!(".{name}")) } else { Self::Name(name) })
            }
            _ => Err(bad(format!("is not a host; {hint}"))),
        }
    }
}

impl ModuleSettings {
    /// Finds what is wrong. `name` is its key.
    pub(super) fn check(&mut self, name: &str, mut at: At<'_>) {
        name.clone_into(&mut self.name);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
            at.add("", "a module's name must be 1 to 63 letters, digits, -, _ and .");
        }
        if self.scheme == Scheme::Http && self.tls != TlsFiles::default() {
            at.add("tls", "has no effect with scheme: http");
        }
        if self.allowed_targets.is_empty() {
            let what =
                "needs at least one address, network like 10.0.0.0/16, name or *.etcd.example: nothing else is dialled";
            at.add("allowed_targets", what);
        }
        if self.allowed_ports.is_empty() || self.allowed_ports.contains(&0) {
            at.add("allowed_ports", "needs ports from 1 to 65535; the default is [2379]");
        }
        if let Some(user) = &self.auth {
            user.check(at.key("auth"));
        }
        self.tls.check(at.key("tls"));
        if let Some(page) = &self.metrics {
            page.check(at.key("metrics"));
        }
        check_quota(self.quota, &mut at);
    }
}

/// The beginning of a value, for an error.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
