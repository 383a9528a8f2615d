//! Why a connection failed where TLS is, or should have been, used: in words that say what to change.

use std::time::Duration;

use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::dial::Dial;
use crate::core::{
    cluster::{Unknown, UnknownKind},
    story,
};

/// For the whole of a diagnosis: the server has just answered, or closed a connection.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(1);
/// How long a server may take to reject a certificate after a handshake: with TLS 1.3 it does so only then.
const REJECTION_LIMIT: Duration = Duration::from_millis(500);
/// How HTTP/2 begins: the preface and empty settings. A server answers with its own settings.
const HTTP2_BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The type of a frame with settings, which is the fourth byte of the frame.
const SETTINGS_FRAME: u8 = 4;

/// What was configured, and how the operator knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TlsHints {
    /// By flags; else by keys of a configuration file.
    pub(super) by_flags: bool,
    pub(super) has_ca: bool,
    pub(super) has_identity: bool,
}

impl TlsHints {
    fn named(self, flags: &'static str, keys: &'static str) -> &'static str {
        if self.by_flags { flags } else { keys }
    }

    /// The same, with what to change if the cause is known.
    pub(super) fn explain(self, unknown: Unknown) -> Unknown {
        if unknown.kind != UnknownKind::Tls {
            return unknown;
        }
        match self.cause(&unknown.detail) {
            Some(cause) => Unknown::new(UnknownKind::Tls, format!("{cause} ({})", unknown.detail)),
            None => unknown,
        }
    }

    fn cause(self, said: &str) -> Option<String> {
        if let Some((_, alert)) = said.split_once("received fatal alert: ") {
            return self.rejected(alert.trim_end_matches(')'));
        }
        let has = |text: &str| said.contains(text);
        // A CA that was made again with the same name has another key.
        let is_foreign = has("UnknownIssuer") || has("BadSignature");
        let cause = if is_foreign && self.has_ca {
            let file = self.named("--cacert", "tls.ca_file");
            format!("the server's certificate is not signed by a CA in {file}: add the server's CA to that file")
        } else if is_foreign {
            let give = self.named("pass the CA's certificate with --cacert", "set tls.ca_file to the CA's certificate");
            format!("the server's certificate is signed by a CA that this machine does not trust: {give}")
        } else if has("certificate expired") {
            let since =
                unix_time(said, "not valid after ").map_or(String::new(), |time| format!(" at {}", story::time(time)));
            format!("the server's certificate expired{since}: renew it")
        } else if has("not valid yet") {
            let from = unix_time(said, "not valid before ")
                .map_or(String::new(), |time| format!(" before {}", story::time(time)));
            format!("the server's certificate is not valid{from}: check the clocks of both machines")
        } else if has("certificate not valid for name") {
            let endpoints = self.named("--endpoints", "endpoints");
            format!(
                "the server's certificate is for other names: use one of them in {endpoints}, or issue a certificate that has \
                this one"
            )
        } else if has("UnsupportedCertVersion") {
            "the server's certificate is X.509 version 1, which is not supported: issue a version 3 certificate"
                .to_owned()
        } else {
            return None;
        };
        Some(cause)
    }

    /// What the server's alert says about the client certificate.
    fn rejected(self, alert: &str) -> Option<String> {
        let cause = match (alert, self.has_identity) {
            ("CertificateRequired" | "BadCertificate" | "HandshakeFailure", false) => {
                let give = self.named("pass --cert and --key", "set tls.cert_file and tls.key_file");
                format!("the server requires a client certificate: {give}")
            }
            ("CertificateExpired", true) => {
                let file = self.named("--cert", "tls.cert_file");
                format!("the server says that the client certificate has expired: renew {file}")
            }
            (
                "CertificateRequired"
                | "BadCertificate"
                | "CertificateUnknown"
                | "UnknownCA"
                | "AccessDenied"
                | "DecryptError"
                | "UnsupportedCertificate",
                true,
            ) => {
                let file = self.named("--cert", "tls.cert_file");
                format!(
                    "the server rejected the client certificate in {file}: a CA in the server's --trusted-ca-file must have \
                    signed it, for client authentication"
                )
            }
            _ => return None,
        };
        Some(cause)
    }

    /// The cause, if the server closed the connection without giving one: the wrong scheme, or a certificate
    /// that is required or rejected. Opens connections, and sends no secret.
    pub(super) async fn diagnose(self, dials: Dials) -> Option<String> {
        timeout(DIAGNOSIS_LIMIT, self.find(dials)).await.ok().flatten()
    }

    async fn find(self, Dials { plain, tls, is_tls }: Dials) -> Option<String> {
        if !is_tls {
            let uses_tls = match tls.handshake().await {
                Ok(_) => true,
                Err(error) => error.to_string().contains("received fatal alert"),
            };
            let give = self.named(
                "write https:// in --endpoints, and pass --cacert",
                "write https:// in endpoints, and set tls.ca_file",
            );
            return uses_tls.then(|| format!("the server uses TLS: {give}"));
        }
        match tls.handshake().await {
            Ok(mut stream) => {
                let mut byte = [0];
                let rejected = timeout(REJECTION_LIMIT, stream.read(&mut byte)).await.ok()?.err()?;
                self.cause(&rejected.to_string())
            }
            Err(_) => {
                let mut socket = plain.socket().await.ok()?;
                socket.write_all(HTTP2_BEGIN).await.ok()?;
                let mut header = [0; 9];
                socket.read_exact(&mut header).await.ok()?;
                let give = self.named(
                    "write http:// in --endpoints, and leave out --cacert, --cert and --key",
                    "write http:// in endpoints, and remove tls",
                );
                (header[3] == SETTINGS_FRAME).then(|| format!("the server does not use TLS: {give}"))
            }
        }
    }
}

/// Both ways to one address.
pub(super) struct Dials {
    pub(super) plain: Dial,
    /// With the configured certificates if TLS is configured, else accepting any server.
    pub(super) tls: Dial,
    pub(super) is_tls: bool,
}

/// The time that the library gives in seconds since 1970, after this text.
fn unix_time(said: &str, after: &str) -> Option<Timestamp> {
    let (_, rest) = said.split_once(after)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Timestamp::from_second(digits.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_explained_with_its_date() {
        let said = "invalid peer certificate: certificate expired: verification time 1795000000 (UNIX), but certificate is not valid after \
            1700000000 (95000000 seconds ago)";
        let explained = TlsHints::default().explain(Unknown::new(UnknownKind::Tls, said));
        assert!(
            explained.detail.starts_with("the server's certificate expired at 2023-11-14 22:13 UTC: renew it ("),
            "{explained}"
        );
    }
}
