//! What TLS to the members and all other TLS have in common: PEM, and which servers a client trusts.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, OtherError, RootCertStore, WantsVerifier,
    client::{
        WantsClientCert, WebPkiServerVerifier,
        danger::{ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use rustls_platform_verifier::BuilderVerifierExt;
use thiserror::Error;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

pub(super) enum Trust {
    System,
    /// Servers with certificates of these CAs, and no others.
    Authorities(Authorities),
    /// Any server. Only if explicitly configured, and never together with a secret.
    AnyServer,
}

/// The certificates of a CA file.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: RootCertStore,
    certificates: Pinned,
}

impl Authorities {
    /// The library must accept each of them.
    pub(super) fn strict(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        Ok(Self { roots, certificates: Pinned(certificates) })
    }

    /// The library must accept at least one.
    pub(super) fn lenient(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates.iter().cloned()).0 == 0 {
            return Err("none of its certificates is usable".to_owned());
        }
        Ok(Self { roots, certificates: Pinned(certificates) })
    }

    /// What accepts the certificates of servers that these have signed, and these themselves.
    pub(super) fn verifier(self) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots), Arc::clone(&provider)).build();
        let signed = signed.map_err(|error| error.to_string())?;
        Ok(Arc::new(Verifier { provider, accepted: Some((signed, self.certificates)) }))
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, String> {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())
}

/// A client's configuration, except for its certificate.
pub(super) fn trusting(trust: Trust) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let builder = builder()?;
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => {
            return builder.with_platform_verifier().map_err(|error| format!("cannot load the system's CAs: {error}"));
        }
        Trust::AnyServer => Arc::new(Verifier { provider: Arc::clone(builder.crypto_provider()), accepted: None }),
        Trust::Authorities(authorities) => authorities.verifier()?,
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// A client without trusted CAs, for `http://`: a minimal machine has none to load, and needs none for it.
pub(super) fn trusting_nobody() -> Result<ClientConfig, String> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Certificates that are trusted as they are, in addition to what they have signed: a certificate that is its own CA,
/// as `etcd --auto-tls` and `openssl req -x509` create it, is in the CA file and is also the server's own. OpenSSL and
/// Go accept that, rustls does not.
#[derive(Debug, Default)]
pub(super) struct Pinned(pub(super) Vec<CertificateDer<'static>>);

/// What a certificate may be used for, by its extended key usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

impl Pinned {
    /// Checks validity and usage of a certificate that is one of these, byte for byte; `None` if it is none of them.
    pub(super) fn judge(
        &self,
        certificate: &CertificateDer<'_>,
        usage: Usage,
        now: UnixTime,
    ) -> Option<Result<(), rustls::Error>> {
        self.0.iter().any(|own| own.as_ref() == certificate.as_ref()).then(|| in_force(certificate, usage, now))
    }
}

fn in_force(certificate: &CertificateDer<'_>, usage: Usage, now: UnixTime) -> Result<(), rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let at = |time: ASN1Time| {
        UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default()))
    };
    let (not_before, not_after) = (at(parsed.validity().not_before), at(parsed.validity().not_after));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    let usages = parsed.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    let is_for_it = usages.is_none_or(|usages| {
        let usages = usages.value;
        usages.any || if usage == Usage::Server { usages.server_auth } else { usages.client_auth }
    });
    if is_for_it { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) }
}

/// The library's error for a CA's certificate, in words that help.
#[derive(Error)]
#[error("it is a CA certificate (CaUsedAsEndEntity), and is accepted only if this very certificate is in the CA file")]
struct OwnAuthority;

// The library displays foreign errors with Debug.
impl fmt::Debug for OwnAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The same error, unless it is that one.
pub(super) fn explained(error: rustls::Error) -> rustls::Error {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            CertificateError::Other(OtherError(Arc::new(OwnAuthority))).into()
        }
        error => error,
    }
}

/// The methods by which a verifier checks that the other side has the key of its certificate, with these algorithms.
macro_rules! verify_signatures {
    ($self:ident, $algorithms:expr) => {
        fn verify_tls12_signature(
            &$self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(message, certificate, signature, &$algorithms)
        }

        fn verify_tls13_signature(
            &$self,
            message: &[u8],
            certificate: &rustls::pki_types::CertificateDer<'_>,
            signature: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(message, certificate, signature, &$algorithms)
        }

        fn supported_verify_schemes(&$self) -> Vec<rustls::SignatureScheme> {
            $algorithms.supported_schemes()
        }
    };
}
pub(super) use verify_signatures;

/// Accepts the certificates that an authority has signed and those that are pinned. The server also proves, by
/// its signature, that it has the key.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Where absent, any certificate is accepted: see [`Trust::AnyServer`].
    accepted: Option<(Arc<WebPkiServerVerifier>, Pinned)>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some((signed, pinned)) = &self.accepted else { return Ok(ServerCertVerified::assertion()) };
        let signed = signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(refusal) = signed else { return signed };
        match pinned.judge(end_entity, Usage::Server, now) {
            None => Err(explained(refusal)),
            Some(judged) => {
                judged?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    verify_signatures!(self, self.provider.signature_verification_algorithms);
}

/// The certificates in a file's text: at least one.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    if found.is_empty() { Err("it contains no PEM certificate".to_owned()) } else { Ok(found) }
}

/// The private key in a file's text.
pub(super) fn key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // The library's error could quote its input, and this is a key.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "it contains no private key in PEM format".to_owned())
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
