//! The credentials for servers: headers, with secrets from files.
//!
//! The files are read again for each request: tokens of service accounts change. Their content is in no Debug output,
//! and [`Secrets`] removes it from whatever a server answers.

use std::{fmt, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use url::{Position, Url};

use super::{CallError, file};
use crate::ports::access::{Credentials, User};

/// Shorter parts of a URL's path are words, such as `hooks` and `alertmanager`.
const MIN_TOKEN_CHARS: usize = 16;

/// The secrets that were sent, to be masked.
#[derive(Clone, Default)]
pub(in crate::adapters) struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Credentials {
    pub fn bearer(token_file: Option<PathBuf>) -> Self {
        Self { bearer_token_file: token_file, ..Self::default() }
    }

    /// Of flags: a bearer token, a user with a password, or none.
    pub fn of_flags(token_file: Option<PathBuf>, user: Option<String>, password_file: Option<PathBuf>) -> Self {
        let user = user.zip(password_file).map(|(username, password_file)| User { username, password_file });
        Self { basic_auth: user, ..Self::bearer(token_file) }
    }

    /// Reads the files. Blocks while it does so.
    pub(super) fn read(&self) -> Result<(HeaderMap, Secrets), CallError> {
        let mut headers = HeaderMap::new();
        let mut secrets = Secrets::default();
        for (name, value) in &self.headers.0 {
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
        if let Some(User { username, password_file: path }) = &self.basic_auth {
            let password = file::secret("the password file", path)?;
            let encoded = STANDARD.encode(format!("{username}:{password}"));
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

const UNFIT: &str = "its content is not valid in a header: it must be one line";

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
    /// Secrets that are not sent by [`Credentials`].
    pub(in crate::adapters) fn of<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all = Self::default();
        secrets.into_iter().for_each(|secret| all.add(secret));
        all.in_order()
    }

    /// What a server may repeat of a URL that is a secret: its path, and the parts of path and query that can be a token.
    pub(in crate::adapters) fn of_url(url: &Url) -> Self {
        let (path, query) = (url.path(), url.query().unwrap_or_default());
        let whole = [&url[Position::BeforePath..Position::AfterQuery], path].into_iter().filter(|whole| *whole != "/");
        let parts = [query].into_iter().chain(path.split('/')).chain(query.split(['&', '=']));
        Self::of(whole.chain(parts.filter(|part| part.len() >= MIN_TOKEN_CHARS)))
    }

    /// These and those.
    pub(super) fn and(mut self, others: &Self) -> Self {
        self.0.extend(others.0.iter().cloned());
        self.in_order()
    }

    /// A secret that contains another one is masked first, or its rest would stay.
    fn in_order(mut self) -> Self {
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self
    }

    fn add(&mut self, secret: &str) {
        // In its JSON form, too.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_secret_in_a_url_is_masked_wherever_a_server_repeats_it_and_words_are_not() {
        let url =
            Url::parse("https://x.example/services/T0/s3cret-s3cret-s3cret?k=t0ken-t0ken-t0ken&v=1").expect("a URL");
        let said = "POST /services/T0/s3cret-s3cret-s3cret?k=t0ken-t0ken-t0ken&v=1: no s3cret-s3cret-s3cret in services \
                    of T0, /services/T0/s3cret-s3cret-s3cret, v=1, t0ken-t0ken-t0ken";
        assert_eq!(Secrets::of_url(&url).mask(said), "POST ***: no *** in services of T0, ***, v=1, ***");
        let bare = Url::parse("https://x.example/?y").expect("a URL");
        assert_eq!(Secrets::of_url(&bare).mask("yes/no, why/?y"), "yes/no, why***");
    }
}
