//! What TLS to the members and TLS to all others have in common: PEM, and whom a client trusts.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme,
    WantsVerifier,
    client::{
        WantsClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use rustls_platform_verifier::BuilderVerifierExt;
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

pub(super) enum Trust {
    System,
    /// These, and none besides.
    Authorities(Authorities),
    /// Any server. Only where that is asked for, and never together with a secret.
    Anybody,
}

/// The certificates of a CA file.
#[derive(Debug)]
pub(super) struct Authorities {
    roots: RootCertStore,
    certificates: Pinned,
}

impl Authorities {
    /// Each of them has to be one that the library takes.
    pub(super) fn strict(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| error.to_string())?;
        }
        Ok(Self { roots, certificates: Pinned(certificates) })
    }

    /// One that the library takes is enough.
    pub(super) fn lenient(certificates: Vec<CertificateDer<'static>>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        if roots.add_parsable_certificates(certificates.iter().cloned()).0 == 0 {
            return Err("none of its certificates can be used".to_owned());
        }
        Ok(Self { roots, certificates: Pinned(certificates) })
    }
}

/// A client's configuration up to what it shows of itself.
pub(super) fn trusting(trust: Trust) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    trust_in(builder, trust)
}

fn trust_in(
    builder: ConfigBuilder<ClientConfig, WantsVerifier>,
    trust: Trust,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = Arc::clone(builder.crypto_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => {
            return builder.with_platform_verifier().map_err(|error| format!("no authorities of the system: {error}"));
        }
        Trust::Anybody => Arc::new(Anybody(provider)),
        Trust::Authorities(Authorities { roots, certificates }) => {
            let signed = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            Arc::new(SignedOrPinned { signed: signed.map_err(|error| error.to_string())?, certificates })
        }
    };
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}

/// A client that trusts nobody, for `http://`: a bare machine has no authorities to load, and needs none there.
pub(super) fn trusting_nobody() -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Certificates that are trusted as they are, besides whatever they have signed: one that is its own authority, as
/// `etcd --auto-tls` and `openssl req -x509` make it, stands in the CA file and is shown by the server as well. OpenSSL
/// and Go take that, rustls does not.
#[derive(Debug, Default)]
pub(super) struct Pinned(pub(super) Vec<CertificateDer<'static>>);

/// What a certificate may be used for, as its extended key usage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

impl Pinned {
    /// What else must hold of a certificate that is one of these, byte for byte; nothing if it is none of them.
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

/// The library's error where a certificate is an authority's, in words that say what helps.
struct OwnAuthority;

impl fmt::Display for OwnAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "it is the certificate of an authority (CaUsedAsEndEntity), and is accepted only if this very certificate \
             is in the CA file",
        )
    }
}

// The library shows errors that are not its own so.
impl fmt::Debug for OwnAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for OwnAuthority {}

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

/// Takes what an authority has signed, and what is pinned.
#[derive(Debug)]
struct SignedOrPinned {
    signed: Arc<WebPkiServerVerifier>,
    certificates: Pinned,
}

impl ServerCertVerifier for SignedOrPinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let signed = self.signed.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(refusal) = signed else { return signed };
        match self.certificates.judge(end_entity, Usage::Server, now) {
            None => Err(explained(refusal)),
            Some(judged) => {
                judged?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// See [`Trust::Anybody`].
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

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
