//! The URLs of the members' metrics pages, if not at their client URLs: one URL for all of them, with placeholders.
//!
//! A member list contains what was once configured on the members. It fills in hosts, and never a scheme, a port or a
//! path.

use thiserror::Error;
use url::{ParseError, Url};

use super::{
    check::{TEXT, read_from_text},
    cluster::MemberFacts,
};

const HOST: &str = "{host}";
const MEMBER: &str = "{member}";

/// What is wrong with `metrics.url`, and what to write instead. It has nothing of the text: a password may be in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{problem}; write it like http://{{host}}:2381/metrics")]
pub struct BadPageUrl {
    problem: PageUrlProblem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
enum PageUrlProblem {
    #[error("has no scheme")]
    NoScheme,
    #[error("must begin with http:// or https://")]
    OtherScheme,
    #[error("contains a user or password: only a client certificate is supported")]
    UserInfo,
    #[error("has a placeholder after its host")]
    PlaceholderInPath,
    #[error("is the same page for all members: put {HOST} or {MEMBER} into its host")]
    NoPlaceholder,
    #[error("has a placeholder other than {HOST} and {MEMBER}")]
    OtherPlaceholder,
    #[error("is not a URL ({0})")]
    NotAUrl(ParseError),
    #[error("has more than a host, a port and a path")]
    QueryOrFragment,
}

impl From<PageUrlProblem> for BadPageUrl {
    fn from(problem: PageUrlProblem) -> Self {
        Self { problem }
    }
}

/// Why a member has no metrics page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoPage {
    #[error("the member's name {0:?} cannot be put into metrics.url: it is no host name")]
    Name(String),
    #[error("the client URL {0} has no host for metrics.url")]
    ClientUrl(String),
    #[error("{filled}, from metrics.url, is not a URL ({error})")]
    NotAUrl { filled: String, error: ParseError },
}

/// A URL with `{host}`, which is the host of a member's client URL, or `{member}`, its name, in its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageUrl(String);

read_from_text!(PageUrl, TEXT, Self::parse, || Self("https://".to_owned()));

impl PageUrl {
    pub fn parse(text: &str) -> Result<Self, BadPageUrl> {
        use PageUrlProblem as Problem;
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(Problem::NoScheme)?;
        if !matches!(scheme, "http" | "https") {
            return Err(Problem::OtherScheme.into());
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(Problem::UserInfo.into());
        }
        if path.contains(['{', '}']) {
            return Err(Problem::PlaceholderInPath.into());
        }
        if !authority.contains(HOST) && !authority.contains(MEMBER) {
            return Err(Problem::NoPlaceholder.into());
        }
        let sample = authority.replace(HOST, "host").replace(MEMBER, "member");
        if sample.contains(['{', '}']) {
            return Err(Problem::OtherPlaceholder.into());
        }
        let url = Url::parse(&format!("{scheme}://{sample}{path}")).map_err(Problem::NotAUrl)?;
        // A secret in it would be shown with the configuration.
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Problem::QueryOrFragment.into());
        }
        let path = if matches!(path, "" | "/") { "/metrics" } else { path };
        Ok(Self(format!("{scheme}://{authority}{path}")))
    }

    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The page of the member with this name that is reached at this client URL; else why it has none.
    pub fn of(&self, client_url: &str, name: &str) -> Result<String, NoPage> {
        let mut filled = self.0.clone();
        if filled.contains(MEMBER) {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || !name.chars().all(plain) {
                return Err(NoPage::Name(name.to_owned()));
            }
            filled = filled.replace(MEMBER, name);
        }
        if filled.contains(HOST) {
            let url = Url::parse(client_url).ok();
            let host =
                url.as_ref().and_then(Url::host_str).filter(|host| !host.is_empty() && !host.contains(['{', '}']));
            let host = host.ok_or_else(|| NoPage::ClientUrl(client_url.to_owned()))?;
            filled = filled.replace(HOST, host);
        }
        match Url::parse(&filled) {
            Ok(_) => Ok(filled),
            Err(error) => Err(NoPage::NotAUrl { filled, error }),
        }
    }
}

/// What is unknown of a member that answers, because its metrics page cannot be read, and the consequences; `None` if
/// the page was read or not requested.
pub fn unread(facts: &MemberFacts) -> Option<String> {
    let (status, Err(unknown)) = (facts.status.as_ref().ok()?, facts.gauges.as_ref()?) else { return None };
    let quota = match status.quota {
        None => "its quota (NOSPACE is not disarmed, and alerts on the quota stay silent), ",
        Some(_) => "",
    };
    Some(format!(
        "cannot read the metrics page of member {}: {}. Unknown: {quota}whether another tool is defragmenting it, and \
        whether it is sending a snapshot. If etcd serves its metrics at another address, set metrics.url{}",
        facts.member.label(),
        unknown.detail,
        if quota.is_empty() { "" } else { ", or at least quota" }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Gauges, Unknown, UnknownKind},
        fixture,
    };

    #[test]
    fn a_page_that_cannot_be_read_names_what_is_unknown_and_what_to_set() {
        let mut facts = fixture::cluster(1);
        let member = &mut facts.members[0];
        assert_eq!(unread(member), None, "not asked for");
        member.gauges = Some(Ok(Gauges::default()));
        assert_eq!(unread(member), None);
        member.gauges = Some(Err(Unknown::new(UnknownKind::Unreachable, "connection refused")));
        let known = unread(member).expect("it was not read");
        assert!(
            known.contains("etcd-1") && known.contains("connection refused") && !known.contains("quota"),
            "{known}"
        );
        member.status.as_mut().expect("up").quota = None;
        let unknown = unread(member).expect("it was not read");
        assert!(unknown.contains("NOSPACE is not disarmed") && unknown.ends_with("or at least quota"), "{unknown}");
        member.status = Err(Unknown::new(UnknownKind::Unreachable, "down"));
        assert_eq!(unread(member), None, "a member that is down has greater troubles");
    }

    #[test]
    fn the_page_is_at_the_host_of_the_client_url_or_under_the_name_of_the_member() {
        let of = |url: &str, client_url: &str, name: &str| PageUrl::parse(url).expect(url).of(client_url, name);
        for (url, client_url, name, page) in [
            ("http://{host}:2381/metrics", "https://10.0.0.1:2379", "a", "http://10.0.0.1:2381/metrics"),
            ("http://{host}:2381", "https://10.0.0.1:2379", "a", "http://10.0.0.1:2381/metrics"),
            ("http://{host}:2381/metrics", "https://[fd00::1]:2379", "a", "http://[fd00::1]:2381/metrics"),
            ("https://{member}.etcd.example/m", "https://10.0.0.1:2379", "etcd-1", "https://etcd-1.etcd.example/m"),
            ("http://{member}.{host}:1/", "http://b.example", "a", "http://a.b.example:1/metrics"),
        ] {
            assert_eq!(of(url, client_url, name).as_deref(), Ok(page));
        }
        for (url, client_url, name) in [
            ("http://{member}:2381", "https://10.0.0.1:2379", ""),
            ("http://{member}:2381", "https://10.0.0.1:2379", "a:80/x"),
            ("http://{member}:2381", "https://10.0.0.1:2379", "user@evil"),
            ("http://{member}:2381", "https://10.0.0.1:2379", "{host}"),
            ("http://{host}:2381", "unix:///run/etcd", "a"),
            ("http://{host}.{member}:2381", "http://{member}:1", "a"),
            ("http://m-{host}:2381", "https://[fd00::1]:2379", "a"),
        ] {
            let page = of(url, client_url, name);
            assert!(page.is_err(), "{page:?}");
        }
    }

    #[test]
    fn what_is_no_page_of_each_member_is_refused_without_being_shown() {
        for (text, problem) in [
            ("{host}:2381/metrics", "has no scheme"),
            ("ftp://{host}/metrics", "must begin with http:// or https://"),
            ("http://u:secret@{host}/metrics", "contains a user or password"),
            ("http://10.0.0.1:2381/metrics", "is the same page for all members"),
            ("http://10.0.0.1/{host}", "has a placeholder after its host"),
            ("http://{host}/{secret}", "has a placeholder after its host"),
            ("http://{host}.{secret}/", "has a placeholder other than"),
            ("http://10.0.0.1:{host}/", "is not a URL"),
            ("http://[{host}]:1/", "is not a URL"),
            ("http://{host}/metrics?token=secret", "has more than a host, a port and a path"),
            ("http://{host}/metrics#secret", "has more than a host, a port and a path"),
        ] {
            let error = PageUrl::parse(text).expect_err(text).to_string();
            assert!(error.contains(problem) && error.contains("http://{host}:2381"), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
