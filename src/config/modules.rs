//! `modules`: how `/probe` speaks to clusters that are not configured, and which addresses it may dial at all.
//!
//! Whoever can reach the port names the target. So nothing is allowed that the module does not list, and that holds for
//! the addresses of the members that the target tells of, too. Networks are compared with addresses only, and names with
//! names only: what a name resolves to is not looked at, so that it cannot change between the look and the call.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use bytesize::ByteSize;
use url::{Host, Url};

use super::{
    MetricsSettings, metrics, raw,
    raw::modules::Scheme,
    validate::{self, Problems},
};

/// The port that etcd's clients are served at.
const CLIENT_PORT: u16 = 2379;
/// What of a target is shown in an error.
const SHOWN_CHARS: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub struct ModuleSettings {
    /// Its name in `module=`.
    pub name: String,
    /// The authorities to trust; the system's where absent.
    pub ca_file: Option<PathBuf>,
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// etcd user and the file with its password.
    pub user: Option<(String, PathBuf)>,
    /// Where the members' metrics pages are; at their client URLs where absent.
    pub metrics: Option<MetricsSettings>,
    /// The backend quota of members that do not report it.
    pub quota: Option<ByteSize>,
    /// What may be dialled.
    pub allowed: Allowed,
}

/// The addresses that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    scheme: Scheme,
    hosts: Vec<Pattern>,
    ports: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// An address and how many of its bits count.
    Network(IpAddr, u8),
    Name(String),
    /// Names that end so; begins with a dot.
    Below(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is no address of a client port.
    NotATarget(String),
    /// It is one, and not allowed.
    Outside(String),
}

/// An address that may be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeAddress {
    /// With scheme and port.
    pub url: String,
    pub authority: String,
}

impl Allowed {
    /// Reads `HOST:PORT` or a URL, and sees whether it may be dialled.
    pub fn target(&self, text: &str) -> Result<ProbeAddress, Denied> {
        let (url, authority) = self.parse(text).map_err(Denied::NotATarget)?;
        self.permits(&url)?;
        Ok(ProbeAddress { url: format!("{}://{authority}", self.scheme()), authority })
    }

    /// Whether a member's client URL may be dialled; else the reason.
    pub fn permits_url(&self, url: &str) -> Result<(), String> {
        match self.target(url) {
            Ok(_) => Ok(()),
            Err(Denied::NotATarget(why) | Denied::Outside(why)) => Err(why),
        }
    }

    /// Whether a metrics page may be dialled; else the reason. Its scheme and port are the module's `metrics.url`'s, and
    /// its host may come from a member list.
    pub fn permits_page(&self, url: &str) -> Result<(), String> {
        let url = Url::parse(url).map_err(|error| format!("it is no address ({error})"))?;
        match self.permits_host(&url) {
            Ok(()) => Ok(()),
            Err(Denied::NotATarget(why) | Denied::Outside(why)) => Err(why),
        }
    }

    fn scheme(&self) -> &'static str {
        match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        }
    }

    /// The URL as the libraries below understand it, so that what is looked at is what is dialled.
    fn parse(&self, text: &str) -> Result<(Url, String), String> {
        let scheme = self.scheme();
        let full = if text.contains("://") { text.to_owned() } else { format!("{scheme}://{text}") };
        let hint = format!("write it like 10.0.0.1:2379 or {scheme}://etcd-1.example:2379");
        let url = Url::parse(&full).map_err(|error| format!("it is no address ({error}); {hint}"))?;
        if url.scheme() != scheme {
            return Err(format!("its scheme is {}, and the module's is {scheme}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() || full.contains('@') {
            return Err("it has a user in it: credentials belong to the module".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("it has more than a host and a port; {hint}"));
        }
        let written = full.split_once("://").map_or("", |(_, rest)| rest).trim_end_matches('/');
        // What follows an IPv6 address, or all of anything else.
        let has_port = written.rsplit(']').next().is_some_and(|rest| rest.contains(':') && !rest.ends_with(':'));
        match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) if has_port && port != 0 => {
                let authority = format!("{host}:{port}");
                Ok((url, authority))
            }
            _ => Err(format!("it has no port; {hint}")),
        }
    }

    fn permits(&self, url: &Url) -> Result<(), Denied> {
        let port = url.port_or_known_default().unwrap_or_default();
        if !self.ports.contains(&port) {
            let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
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
        self.hosts.iter().any(|pattern| match pattern {
            Pattern::Network(..) => false,
            Pattern::Name(allowed) => allowed == name,
            Pattern::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
        })
    }

    fn permits_address(&self, address: IpAddr) -> bool {
        self.hosts.iter().any(|pattern| match *pattern {
            Pattern::Network(network, bits) => first_bits(network, bits) == first_bits(address, bits),
            Pattern::Name(_) | Pattern::Below(_) => false,
        })
    }
}

/// The network of so many bits that an address is in; of different families never the same.
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

fn pattern(text: &str) -> Result<Pattern, String> {
    let hint = "write an address, a network like 10.0.0.0/16, a name, or *.etcd.example";
    if let Some((address, bits)) = text.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} is no network; {hint}"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.parse().ok().filter(|bits| *bits <= most);
        return bits
            .map(|bits| Pattern::Network(address, bits))
            .ok_or_else(|| format!("{text:?} has no number of bits from 0 to {most} after its slash"));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Pattern::Network(address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let (below, name) = text.strip_prefix("*.").map_or((false, text), |name| (true, name));
    // As a URL has it: lower case, and no name that is an address in disguise.
    match Host::parse(name) {
        Ok(Host::Domain(name)) if !name.contains('*') && !name.is_empty() && !name.contains(':') => {
            let name = name.trim_end_matches('.').to_owned();
            Ok(if below { Pattern::Below(format!(".{name}")) } else { Pattern::Name(name) })
        }
        _ => Err(format!("{text:?} is no host; {hint}")),
    }
}

/// All modules, by their names.
pub(super) fn modules(
    raw: BTreeMap<String, raw::modules::Module>,
    problems: &mut Problems,
) -> BTreeMap<String, ModuleSettings> {
    let checked = raw.into_iter().map(|(name, raw)| (name.clone(), module(name, raw, problems)));
    checked.collect()
}

fn module(name: String, raw: raw::modules::Module, problems: &mut Problems) -> ModuleSettings {
    let at = format!("modules.{name}");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        problems.add(&at, "a module's name has 1 to 63 letters, digits, - _ and . in it");
    }
    let scheme = raw.scheme.unwrap_or_default();
    let has_tls = raw.tls.ca_file.is_some() || raw.tls.cert_file.is_some() || raw.tls.key_file.is_some();
    if scheme == Scheme::Http && has_tls {
        problems.add(format!("{at}.tls"), "has no effect with scheme: http");
    }
    if raw.allowed_targets.is_empty() {
        let what =
            "needs at least one address, network like 10.0.0.0/16, name or *.etcd.example: nothing else is dialled";
        problems.add(format!("{at}.allowed_targets"), what);
    }
    let mut hosts = Vec::new();
    for (index, text) in raw.allowed_targets.iter().enumerate() {
        match pattern(text) {
            Ok(pattern) => hosts.push(pattern),
            Err(what) => problems.add(format!("{at}.allowed_targets[{index}]"), what),
        }
    }
    let ports = raw.allowed_ports.unwrap_or_else(|| vec![CLIENT_PORT]);
    if ports.is_empty() || ports.contains(&0) {
        problems.add(format!("{at}.allowed_ports"), "needs ports from 1 to 65535; left out, it is [2379]");
    }
    if raw.auth.as_ref().is_some_and(|auth| auth.username.is_empty()) {
        problems.add(format!("{at}.auth.username"), "must not be empty");
    }
    ModuleSettings {
        ca_file: raw.tls.ca_file,
        identity_files: validate::identity(&format!("{at}.tls"), raw.tls.cert_file, raw.tls.key_file, problems),
        user: raw.auth.map(|auth| (auth.username, auth.password_file)),
        metrics: metrics::settings(&format!("{at}.metrics"), raw.metrics, problems),
        quota: metrics::quota(&format!("{at}.quota"), raw.quota, problems),
        allowed: Allowed { scheme, hosts, ports },
        name,
    }
}

/// The beginning of what somebody wrote, for an error.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
