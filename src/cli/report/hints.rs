//! What to try when a call to Prometheus fails, depending on the error.

use crate::adapters::outgoing::CallError;

/// `None` where the error is clear by itself.
pub(super) fn of(error: &CallError, shows_something: bool) -> Option<&'static str> {
    match error {
        CallError::Refused { status: 401 | 403, .. } if shows_something => {
            Some("It rejected the user and password, or the token: check the flags and their files.")
        }
        CallError::Refused { status: 401 | 403, .. } => Some(
            "It requires authentication: pass --prometheus.user with --prometheus.password-file, or --prometheus.bearer-token-file.",
        ),
        CallError::Refused { status: 422, .. } => {
            Some("If the query is too large for it, choose one --cluster, a shorter --range, or a longer --step.")
        }
        CallError::Refused { status: 300..=399 | 404 | 405, .. } | CallError::NotUnderstood { .. } => {
            Some("Is --prometheus.url the address of a Prometheus, with its route prefix if it has one?")
        }
        CallError::Refused { status: 400, detail, .. } if detail.contains("HTTPS server") => {
            Some("It speaks TLS: use a URL that begins with https://.")
        }
        CallError::Unreachable { detail, .. }
            if ["UnknownIssuer", "BadSignature"].iter().any(|why| detail.contains(why)) =>
        {
            Some("Its certificate is not signed by a trusted CA: pass that CA's file with --prometheus.ca-file.")
        }
        // What servers with TLS 1.2, with TLS 1.3 and in Go answer if they got no certificate. With 1.3, the client's
        // handshake is finished before the server rejects it, and the client may see the closed connection before
        // the alert.
        CallError::Unreachable { detail, .. }
            if ["CertificateRequired", "BadCertificate", "HandshakeFailure", "connection was not ready"]
                .iter()
                .any(|why| detail.contains(why)) =>
        {
            Some("It wants a client certificate: pass --prometheus.cert-file and --prometheus.key-file.")
        }
        CallError::Unreachable { detail, .. } if detail.contains("InvalidContentType") => {
            Some("It does not speak TLS: use a URL that begins with http://.")
        }
        _ => None,
    }
}
