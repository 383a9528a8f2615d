//! Throw-away certificates: a CA and the certificates that it signed, all as PEM files in one directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// What every certificate is good for: loopback, what SRV records of a test are below, and the node of [`crate::KubeLab`]
/// with its API server.
const NAMES: [&str; 8] = [
    "127.0.0.1",
    "127.0.0.2",
    "127.0.0.3",
    "localhost",
    "example.test",
    "198.18.0.1",
    "198.19.0.1",
    "kubernetes.default.svc",
];

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl Identity {
    /// Certificate and key in one PEM text, as HTTP clients need them.
    pub fn pem(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.cert)? + &fs::read_to_string(&self.key)?)
    }
}

/// A CA with a server, a peer and a client certificate.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
    ca: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
    server: Identity,
    peer: Identity,
    client: Identity,
}

impl Pki {
    /// Makes the CA and its certificates for 127.0.0.1 and localhost, in an existing or new directory.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "defragd test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("failed to make a CA")?;
        let ca = dir.join("ca.crt");
        fs::write(&ca, issuer.pem())?;
        let server = sign(&issuer, dir, "server", "etcd-server", &SERVER)?;
        let peer = sign(&issuer, dir, "peer", "etcd-peer", &SERVER)?;
        let client = sign(&issuer, dir, "client", "defragd-test", &SERVER[1..])?;
        Ok(Self { dir: dir.to_owned(), ca, issuer, server, peer, client })
    }

    /// A client certificate with this common name, which etcd takes for the user's name when auth is on.
    pub fn client_named(&self, common_name: &str) -> Result<Identity> {
        sign(
            &self.issuer,
            &self.dir,
            &format!("client-{common_name}"),
            common_name,
            &[ExtendedKeyUsagePurpose::ClientAuth],
        )
    }

    /// A client certificate that was good some decades ago.
    pub fn expired_client(&self) -> Result<Identity> {
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        sign_for(&self.issuer, &self.dir, "client-expired", "defragd-test", &usages, |params| {
            params.not_before = date_time_ymd(1999, 1, 1);
            params.not_after = date_time_ymd(2000, 1, 1);
        })
    }

    /// A server's certificate that expired some decades ago.
    pub fn expired_server(&self) -> Result<Identity> {
        sign_for(&self.issuer, &self.dir, "server-expired", "etcd-server", &SERVER, |params| {
            params.not_before = date_time_ymd(1999, 1, 1);
            params.not_after = date_time_ymd(2000, 1, 1);
        })
    }

    /// A server's certificate that is only for this name.
    pub fn server_for(&self, name: &str) -> Result<Identity> {
        let name = rcgen::SanType::DnsName(name.try_into()?);
        sign_for(&self.issuer, &self.dir, "server-elsewhere", "etcd-server", &SERVER, |params| {
            params.subject_alt_names = vec![name];
        })
    }

    /// A server's certificate of X.509 version 1, as old scripts make them with openssl. Its signature is wrong: clients
    /// look at the version first.
    pub fn version_1_server(&self) -> Result<Identity> {
        let signed = sign(&self.issuer, &self.dir, "server-version-1", "etcd-server", &SERVER)?;
        let pem = fs::read_to_string(&signed.cert)?;
        let text: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = BASE64_STANDARD.decode(text)?;
        let [certificate] = &elements(&der)[..] else { bail!("not one certificate") };
        let [to_be_signed, rest @ ..] = &elements(certificate.content)[..] else { bail!("it is empty") };
        // Version 1 is what a certificate without a version has, and it has no extensions.
        let old =
            elements(to_be_signed.content).into_iter().filter(|field| ![VERSION, EXTENSIONS].contains(&field.tag));
        let old = sequence(&old.flat_map(|field| field.all.to_vec()).collect::<Vec<_>>());
        let rest = rest.iter().flat_map(|element| element.all.to_vec());
        let old = BASE64_STANDARD.encode(sequence(&old.into_iter().chain(rest).collect::<Vec<_>>()));
        let lines: Vec<_> = old.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
        fs::write(&signed.cert, pem)?;
        Ok(signed)
    }

    /// A server's certificate that is its own authority, as `etcd --auto-tls` makes it.
    pub fn self_signed(dir: &Path, file: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Identity> {
        fs::create_dir_all(dir)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.distinguished_name.push(DnType::CommonName, file);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let cert = params.self_signed(&key).with_context(|| format!("failed to sign {file}"))?;
        write(dir, file, &cert.pem(), &key)
    }

    /// The CA's certificate, PEM.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The members' certificate for clients.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// The members' certificate for one another.
    pub fn peer(&self) -> &Identity {
        &self.peer
    }

    /// A client certificate with the common name `defragd-test`.
    pub fn client(&self) -> &Identity {
        &self.client
    }
}

/// etcd's own gateway dials itself with the server's certificate, so that one is a client's, too.
const SERVER: [ExtendedKeyUsagePurpose; 2] = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
/// The tags of these fields of a certificate.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

/// One element of DER.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    all: &'a [u8],
}

/// The elements one after the other, up to the first that is cut off.
fn elements(mut der: &[u8]) -> Vec<Element<'_>> {
    let mut found = Vec::new();
    while let [tag, first, ..] = *der {
        // From 0x80 on, it is the number of bytes that hold the length.
        let bytes = usize::from(first.saturating_sub(0x80));
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            der.iter().skip(2).take(bytes).fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        let begin = 2 + bytes;
        let (Some(content), Some(all)) = (der.get(begin..begin + length), der.get(..begin + length)) else { break };
        found.push(Element { tag, content, all });
        der = &der[all.len()..];
    }
    found
}

/// A DER sequence with this content, which is shorter than 64 KiB. Only the shortest form of a length is valid.
fn sequence(content: &[u8]) -> Vec<u8> {
    match u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes() {
        [0, low @ ..0x80] => [&[0x30, low], content].concat(),
        [0, low] => [&[0x30, 0x81, low], content].concat(),
        [high, low] => [&[0x30, 0x82, high, low], content].concat(),
    }
}

fn sign(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    dir: &Path,
    file: &str,
    common_name: &str,
    usages: &[ExtendedKeyUsagePurpose],
) -> Result<Identity> {
    sign_for(issuer, dir, file, common_name, usages, |_| {})
}

fn sign_for(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    dir: &Path,
    file: &str,
    common_name: &str,
    usages: &[ExtendedKeyUsagePurpose],
    change: impl FnOnce(&mut CertificateParams),
) -> Result<Identity> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    change(&mut params);
    let cert = params.signed_by(&key, issuer).with_context(|| format!("failed to sign {file}"))?;
    write(dir, file, &cert.pem(), &key)
}

fn write(dir: &Path, file: &str, cert: &str, key: &KeyPair) -> Result<Identity> {
    let identity = Identity { cert: dir.join(format!("{file}.crt")), key: dir.join(format!("{file}.key")) };
    fs::write(&identity.cert, cert)?;
    fs::write(&identity.key, key.serialize_pem())?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_authorities_share_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let one = Pki::create(&dir.path().join("one")).unwrap();
        let two = Pki::create(&dir.path().join("two")).unwrap();
        assert_ne!(fs::read(one.ca()).unwrap(), fs::read(two.ca()).unwrap());
        let named = two.client_named("root").unwrap();
        assert!(named.pem().unwrap().contains("PRIVATE KEY"));
    }
}
