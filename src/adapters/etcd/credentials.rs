//! The secrets for connecting to one cluster, as read from their files at one moment: CAs, certificate, key, password.
//! Compared by content: certificate managers and Kubernetes swap links, so the times of files show nothing.
//!
//! It keeps only one version: users of an old version hold it themselves.

use std::path::Path;

use super::connect::ConnectError;
use crate::ports::access::{TlsFiles, User};

/// Where the secrets are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    pub tls: TlsFiles,
    pub user: Option<User>,
}

/// The content of the files. Without `Debug`: it is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
}

impl CredentialFiles {
    /// Whether there are no files to check for changes.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Blocks. Does not check yet whether the parts belong together.
    pub(super) fn read(&self) -> Result<Credentials, ConnectError> {
        let ca = self.tls.ca_file.as_deref().map(|path| read("the CA certificate", path)).transpose()?;
        let identity = self
            .tls
            .identity()
            .map(|(cert, key)| Ok((read("the client certificate", cert)?, read("the client key", key)?)))
            .transpose()?;
        let user = |user: &User| Ok((user.username.clone(), password(&user.password_file)?));
        let user = self.user.as_ref().map(user).transpose()?;
        Ok(Credentials { ca, identity, user })
    }
}

fn password(path: &Path) -> Result<String, ConnectError> {
    const WHAT: &str = "the password";
    let unusable =
        |detail: &str| ConnectError::Unusable { what: WHAT, path: path.to_owned(), detail: detail.to_owned() };
    let text = String::from_utf8(read(WHAT, path)?).map_err(|_| unusable("it is not UTF-8 text"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    // A file that is being written may be empty; no etcd user can log in with an empty password.
    if password.is_empty() { Err(unusable("the file is empty")) } else { Ok(password.to_owned()) }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|cause| ConnectError::File { what, path: path.to_owned(), cause })
}
