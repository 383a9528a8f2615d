//! What is secret about reaching one cluster, as its files hold it at one moment: authorities, certificate, key,
//! password. Compared by content: certificate managers and Kubernetes swap links, and times of files tell nothing then.
//!
//! Must not keep more than one version: who uses an old one has it.

use std::path::{Path, PathBuf};

use super::connect::ConnectError;

/// The paths of the files, as etcdctl's `--cacert`, `--cert`, `--key` and `--password-file`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Certificates of the authorities to trust; the system's where absent.
    pub ca: Option<PathBuf>,
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The user, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

/// What the files held. Without `Debug`: it is secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub(super) identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
}

impl CredentialFiles {
    /// Whether there is nothing to look at again.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Blocks. Says nothing yet about whether the parts fit together.
    pub(super) fn read(&self) -> Result<Credentials, ConnectError> {
        let ca = self.ca.as_deref().map(|path| read("the CA certificate", path)).transpose()?;
        let identity = self
            .identity
            .as_ref()
            .map(|(cert, key)| Ok((read("the client certificate", cert)?, read("the client key", key)?)))
            .transpose()?;
        let user = self.user.as_ref().map(|(name, path)| Ok((name.clone(), password(path)?))).transpose()?;
        Ok(Credentials { ca, identity, user })
    }
}

fn password(path: &Path) -> Result<String, ConnectError> {
    const WHAT: &str = "the password";
    let unusable =
        |detail: &str| ConnectError::Unusable { what: WHAT, path: path.to_owned(), detail: detail.to_owned() };
    let text = String::from_utf8(read(WHAT, path)?).map_err(|_| unusable("it is not UTF-8 text"))?;
    let password = text.trim_end_matches(['\r', '\n']);
    // What somebody is writing at this moment looks so; no user of etcd can log in with an empty one.
    if password.is_empty() { Err(unusable("the file is empty")) } else { Ok(password.to_owned()) }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File { what, path: path.to_owned(), source })
}
