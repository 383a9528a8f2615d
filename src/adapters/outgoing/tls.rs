//! TLS of what we dial, the etcd members excepted.
//!
//! The files are read each time that a configuration is made: certificates are renewed under our feet.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::{CallError, file};
use crate::adapters::tls;

/// Whom we trust and who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificates of the authorities to trust; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// The name to ask for and to verify, where it is not the address's.
    pub server_name: Option<String>,
    /// Talk to anybody.
    pub insecure_skip_verify: bool,
}

impl ClientTls {
    /// Reads the files. Blocks while it does so.
    pub(in crate::adapters) fn config(&self) -> Result<ClientConfig, CallError> {
        let builder = if self.insecure_skip_verify {
            let builder = tls::builder().map_err(CallError::Tls)?;
            let anybody = Anybody(Arc::clone(builder.crypto_provider()));
            builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody))
        } else {
            tls::trusting(self.ca_file.as_deref().map(roots).transpose()?).map_err(CallError::Tls)?
        };
        let Some((cert_path, key_path)) = &self.identity_files else { return Ok(builder.with_no_client_auth()) };
        let chain = certificates("the client certificate", cert_path)?;
        let what = "the client key";
        let key = tls::key(&file::read(what, key_path)?).map_err(|detail| file::error(what, key_path, &detail))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| file::error(what, key_path, &error.to_string()))
    }

    /// Without any trust, for `http://`: a bare machine has no authorities to load, and needs none there.
    pub(super) fn nobody() -> Result<ClientConfig, CallError> {
        let builder = tls::trusting(Some(RootCertStore::empty())).map_err(CallError::Tls)?;
        Ok(builder.with_no_client_auth())
    }
}

fn roots(path: &Path) -> Result<RootCertStore, CallError> {
    let what = "the certificate authorities";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots.add(certificate).map_err(|error| file::error(what, path, &error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, CallError> {
    tls::certificates(&file::read(what, path)?).map_err(|detail| file::error(what, path, &detail))
}

/// Trusts anybody. Only for those who asked for it, and never together with a secret.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
