//! What TLS to the members and TLS to all others have in common: PEM, and whom a client trusts.

use std::sync::Arc;

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier,
    client::WantsClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use rustls_platform_verifier::BuilderVerifierExt;

/// A client's configuration before anything is said of trust.
pub(super) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

/// A client that trusts these authorities, or the system's.
pub(super) fn trusting(roots: Option<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    match roots {
        Some(roots) => Ok(builder()?.with_root_certificates(roots)),
        None => builder()?.with_platform_verifier().map_err(|error| format!("no authorities of the system: {error}")),
    }
}

/// The certificates in a file's text: at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if found.is_empty() { Err("it holds no PEM certificate".to_owned()) } else { Ok(found) }
}

/// The private key in a file's text.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The library's error could show what it stumbled over, and this is a key.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it holds no private key in PEM".to_owned())
}
