//! The server's side of TLS, translated from exporter-toolkit's terms to rustls's.

use std::sync::Arc;

use rustls::{
    CertificateError, CipherSuite, DistinguishedName, Error, NamedGroup, ProtocolVersion, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::{
    adapters::tls::{Pinned, Usage, explained, verify_signatures},
    ports::web::{ClientAuth, Pem, TlsVersion, WebTls},
};

/// Reads the files. The error has one problem per line, and nothing of a key.
pub(super) fn server_config(tls: &WebTls, http2: bool) -> Result<ServerConfig, String> {
    let mut problems = Vec::new();
    let mut keep = |what: Result<_, String>| what.map_err(|problem| problems.push(problem)).ok();
    let chain = keep(certificates("cert", &tls.cert).map(Some)).flatten();
    let ca = keep(tls.client_ca.as_ref().map(|pem| certificates("client_ca", pem)).transpose()).flatten();
    let key = text("key", &tls.key).and_then(|(at, text)| {
        // The library's error could contain parts of the key.
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| format!("{at}: contains no private key in PEM format"))
    });
    let key = key.map_err(|problem| problems.push(problem)).ok();
    let (Some(chain), Some(key), true) = (chain, key, problems.is_empty()) else { return Err(problems.join("\n")) };

    let provider = Arc::new(provider(tls));
    let refused = |error: Error| format!("tls_server_config: {error}");
    let verifier = clients(tls, ca, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(tls))
        .map_err(|error| format!("tls_server_config.cipher_suites: {error}"))?;
    let builder = match verifier {
        None => builder.with_no_client_auth(),
        Some(verifier) => builder.with_client_cert_verifier(verifier),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        Error::InconsistentKeys(_) => "tls_server_config.key: does not belong to the certificate".to_owned(),
        other => refused(other),
    })?;
    config.ignore_client_order = tls.prefer_server_cipher_suites;
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(config)
}

fn text(key: &str, pem: &Pem) -> Result<(String, Vec<u8>), String> {
    match pem {
        Pem::Inline(text) => Ok((format!("tls_server_config.{key}"), text.clone().into_bytes())),
        Pem::File(path) => {
            let at = format!("tls_server_config.{key}_file");
            let read = std::fs::read(path).map_err(|error| format!("{at}: cannot read {}: {error}", path.display()))?;
            Ok((at, read))
        }
    }
}

fn certificates(key: &str, pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let (at, text) = text(key, pem)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(format!("{at}: contains no certificates in PEM format")),
    }
}

fn versions(tls: &WebTls) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls12, &TLS12), (TlsVersion::Tls13, &TLS13)];
    let range = tls.min_version..=tls.max_version;
    all.into_iter().filter(|(version, _)| range.contains(version)).map(|(_, version)| version).collect()
}

/// As in Go, names of TLS 1.2 suites do not affect TLS 1.3 suites, which stay enabled unless some are named.
fn provider(tls: &WebTls) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if !tls.cipher_suites.is_empty() {
        let all = provider.cipher_suites.clone();
        let named =
            tls.cipher_suites.iter().filter_map(|name| all.iter().find(|suite| go_name(suite.suite()) == *name));
        let mut chosen: Vec<_> = named.copied().collect();
        if !chosen.iter().any(|suite| suite.version().version == ProtocolVersion::TLSv1_3) {
            chosen.extend(all.iter().filter(|suite| suite.version().version == ProtocolVersion::TLSv1_3));
        }
        provider.cipher_suites = chosen;
    }
    if !tls.curve_preferences.is_empty() {
        provider.kx_groups = tls.curve_preferences.iter().filter_map(|name| group(name)).collect();
    }
    provider
}

fn go_name(suite: CipherSuite) -> String {
    suite.as_str().unwrap_or_default().replace("TLS13_", "TLS_")
}

fn group(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    let wanted = match name {
        "CurveP256" => NamedGroup::secp256r1,
        "CurveP384" => NamedGroup::secp384r1,
        "X25519" => NamedGroup::X25519,
        "X25519MLKEM768" => NamedGroup::X25519MLKEM768,
        _ => return None,
    };
    aws_lc_rs::ALL_KX_GROUPS.iter().copied().find(|group| group.name() == wanted)
}

fn clients(
    tls: &WebTls,
    ca: Option<Vec<CertificateDer<'static>>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    if tls.client_auth == ClientAuth::None {
        return Ok(None);
    }
    let mut pinned = Pinned::default();
    let mut signed = None;
    if tls.client_auth.verifies() {
        let bad = |error: &dyn std::fmt::Display| format!("tls_server_config.client_ca: {error}");
        let mut roots = RootCertStore::empty();
        let is_of_system = ca.is_none();
        if let Some(certificates) = ca {
            for certificate in &certificates {
                roots.add(certificate.clone()).map_err(|error| bad(&error))?;
            }
            pinned = Pinned(certificates);
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if is_of_system {
            // As in Go: the handshake does not list all these authorities.
            builder = builder.clear_root_hint_subjects();
        }
        signed = Some(builder.build().map_err(|error| match error {
            VerifierBuilderError::NoRootAnchors => {
                bad(&"is missing, and this machine has no CAs of its own: set client_ca_file")
            }
            other => bad(&other),
        })?);
    }
    Ok(Some(Arc::new(Clients {
        signed,
        pinned,
        required: tls.client_auth.requires(),
        allowed_sans: tls.client_allowed_sans.clone(),
        algorithms: provider.signature_verification_algorithms,
    })))
}

/// Verifies clients' certificates. That a client has the key of its certificate is always verified.
#[derive(Debug)]
struct Clients {
    /// Verifies the signature of the client CA, where there is one.
    signed: Option<Arc<dyn ClientCertVerifier>>,
    /// The certificates in the client CA file, which are accepted themselves, too.
    pinned: Pinned,
    required: bool,
    /// Any where empty.
    allowed_sans: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.as_ref().map_or(&[], |signed| signed.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if let Some(signed) = &self.signed
            && let Err(refusal) = signed.verify_client_cert(end_entity, intermediates, now)
        {
            self.pinned.judge(end_entity, Usage::Client, now).unwrap_or_else(|| Err(explained(refusal)))?;
        }
        if self.allowed_sans.is_empty() || names(end_entity)?.iter().any(|name| self.allowed_sans.contains(name)) {
            Ok(ClientCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    verify_signatures!(self, self.algorithms);
}

/// The subject's alternative names: DNS, e-mail, IP, URI.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| bad())?;
    let Some(extension) = parsed.subject_alternative_name().map_err(|_| bad())? else { return Ok(Vec::new()) };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    };
    Ok(extension.value.general_names.iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::web::{CIPHER_SUITES, CURVES};

    #[test]
    fn the_names_that_the_configuration_accepts_are_those_that_are_supported() {
        let mut suites: Vec<_> =
            aws_lc_rs::default_provider().cipher_suites.iter().map(|suite| go_name(suite.suite())).collect();
        suites.sort();
        assert_eq!(suites, CIPHER_SUITES);
        assert!(CURVES.iter().all(|name| group(name).is_some()));
    }
}
