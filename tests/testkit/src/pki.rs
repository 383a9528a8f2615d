//! Throw-away certificates: a CA and the certificates that it signed, all as PEM files in one directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
        // etcd's own gateway dials itself with the server's certificate, so that one is a client's too.
        let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let server = sign(&issuer, dir, "server", "etcd-server", &both)?;
        let peer = sign(&issuer, dir, "peer", "etcd-peer", &both)?;
        let client = sign(&issuer, dir, "client", "defragd-test", &both[1..])?;
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
