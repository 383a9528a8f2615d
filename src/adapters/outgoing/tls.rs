//! TLS of all outgoing connections except to etcd members.
//!
//! The files are read each time a configuration is made: certificates are renewed regularly.

use std::path::Path;

use rustls::{ClientConfig, pki_types::CertificateDer};

use super::{CallError, file};
use crate::{
    adapters::tls::{self, Authorities, Trust},
    ports::access::ClientTls,
};

impl ClientTls {
    /// Reads the files. Blocks while it does so.
    pub(in crate::adapters) fn config(&self) -> Result<ClientConfig, CallError> {
        let trust = match &self.ca_file {
            _ if self.insecure_skip_verify => Trust::AnyServer,
            Some(path) => Trust::Authorities(authorities(path)?),
            None => Trust::System,
        };
        let builder = tls::trusting(trust).map_err(CallError::Tls)?;
        let Some((cert_path, key_path)) = self.identity() else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates("the client certificate", cert_path)?;
        let what = "the client key";
        let key = tls::key(&file::read(what, key_path)?).map_err(|detail| file::error(what, key_path, &detail))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| file::error(what, key_path, &error.to_string()))
    }
}

fn authorities(path: &Path) -> Result<Authorities, CallError> {
    let what = "the certificate authorities";
    Authorities::strict(certificates(what, path)?).map_err(|detail| file::error(what, path, &detail))
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, CallError> {
    tls::certificates(&file::read(what, path)?).map_err(|detail| file::error(what, path, &detail))
}
