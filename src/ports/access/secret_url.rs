//! URLs that are secrets, as those of chat services' webhooks are: a client that knows the path may post.

use std::{fmt, str::FromStr};

use url::{ParseError, Url};

use crate::core::check::read_from_text;

/// An `http` or `https` URL of which only scheme, host and port are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// What such a value is called in serde's errors. `config` recognises these values by it, and redacts them.
    pub const EXPECTED: &'static str = "a URL";

    /// All of it, to connect to it.
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// What makes it unusable wherever it is written.
    pub fn problem(&self) -> Option<&'static str> {
        let Self(url) = self;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            Some("must begin with http:// or https:// and have a host")
        } else if !url.username().is_empty() || url.password().is_some() {
            Some("contains a user or password: use basic_auth with username and password_file")
        } else if url.fragment().is_some() {
            Some("has a fragment (#…), which is not sent to servers")
        } else {
            (url.port() == Some(0)).then_some("has the port 0")
        }
    }
}

impl FromStr for SecretUrl {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        text.trim().parse().map(Self)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(url) = self;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        write!(f, "{}{}", url.origin().ascii_serialization(), if is_bare { "" } else { "/***" })
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

read_from_text!(
    SecretUrl,
    Self::EXPECTED,
    |text| {
        let hint = "write it like https://10.0.0.1:6443/readyz";
        text.parse().map_err(|error: ParseError| format!("is not a URL ({error}); {hint}"))
    },
    || Self(Url::from_directory_path("/").expect("an absolute path"))
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_are_shown() {
        for (text, shown) in [
            ("https://hooks.example.org/services/T0/B0/s3cret", "https://hooks.example.org/***"),
            ("https://x.example:8443/?key=s3cret", "https://x.example:8443/***"),
            ("https://ann:s3cret@x.example/", "https://x.example"),
            ("http://[2001:db8::1]:9/#s3cret", "http://[2001:db8::1]:9/***"),
            (" http://x.example ", "http://x.example"),
        ] {
            let url: SecretUrl = text.parse().expect(text);
            assert_eq!((url.to_string().as_str(), format!("{:?}", Some(&url))), (shown, format!("Some({shown})")));
        }
    }
}
