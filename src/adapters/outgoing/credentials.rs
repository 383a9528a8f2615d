//! What we show to servers: headers, among them secrets from files.
//!
//! The files are read anew for each request: tokens of service accounts change. What was read is in no
//! Debug output, and [`Secrets`] takes it out of whatever a server says.

use std::{fmt, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::{CallError, file};

/// Where the headers come from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub headers: Vec<(String, String)>,
    /// Sent with what the files hold.
    pub header_files: Vec<(String, PathBuf)>,
    pub bearer_token_file: Option<PathBuf>,
    /// The user and the file with its password.
    pub basic_auth: Option<(String, PathBuf)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Credentials")
            .field("headers", &names)
            .field("header_files", &self.header_files)
            .field("bearer_token_file", &self.bearer_token_file)
            .field("basic_auth", &self.basic_auth)
            .finish()
    }
}

/// What was sent and must not be shown.
#[derive(Clone, Default)]
pub(in crate::adapters) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Credentials {
    /// A bearer token, or nothing.
    pub fn bearer(token_file: Option<PathBuf>) -> Self {
        Self { bearer_token_file: token_file, ..Self::default() }
    }

    /// Whether there is anything in them that only the configured server may see.
    pub(super) fn are_secret(&self) -> bool {
        self.bearer_token_file.is_some() || self.basic_auth.is_some() || !self.header_files.is_empty()
    }

    /// Reads the files. Blocks while it does so.
    pub(super) fn read(&self) -> Result<(HeaderMap, Secrets), CallError> {
        let mut headers = HeaderMap::new();
        let mut secrets = Secrets::default();
        for (name, value) in &self.headers {
            headers.insert(header_name(name)?, header_value(value).ok_or_else(|| bad_header(name))?);
            secrets.add(value);
        }
        for (name, path) in &self.header_files {
            let what = "the header's value in";
            let value = file::secret(what, path)?;
            headers.insert(header_name(name)?, header_value(&value).ok_or_else(|| file::error(what, path, UNFIT))?);
            secrets.add(&value);
        }
        if let Some(path) = &self.bearer_token_file {
            let what = "the token file";
            let token = file::secret(what, path)?;
            let value = header_value(&format!("Bearer {token}")).ok_or_else(|| file::error(what, path, UNFIT))?;
            headers.insert(AUTHORIZATION, value);
            secrets.add(&token);
        }
        if let Some((user, path)) = &self.basic_auth {
            let password = file::secret("the password file", path)?;
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            headers.insert(
                AUTHORIZATION,
                header_value(&format!("Basic {encoded}")).ok_or_else(|| bad_header("Authorization"))?,
            );
            secrets.add(&password);
            secrets.add(&encoded);
        }
        Ok((headers, secrets.in_order()))
    }
}

const UNFIT: &str = "it holds what cannot stand in a header: it must be one line";

fn header_name(name: &str) -> Result<HeaderName, CallError> {
    name.parse().map_err(|_| bad_header(name))
}

fn header_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn bad_header(name: &str) -> CallError {
    CallError::Header(name.to_owned())
}

impl Secrets {
    /// What others than [`Credentials`] send.
    pub(in crate::adapters) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        secrets.into_iter().for_each(|secret| all.add(secret));
        all.in_order()
    }

    /// A secret that contains another one goes first, or its rest would stay.
    fn in_order(mut self) -> Self {
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self
    }

    fn add(&mut self, secret: &str) {
        // As it stands in JSON, too.
        let quoted = serde_json::Value::from(secret).to_string();
        let quoted = &quoted[1..quoted.len() - 1];
        self.0.extend([secret, quoted].into_iter().filter(|text| !text.is_empty()).map(str::to_owned));
        self.0.dedup();
    }

    /// The text without them.
    pub(in crate::adapters) fn mask(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}
