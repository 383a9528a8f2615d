//! What to try when Prometheus does not answer, by what went wrong.

use crate::adapters::outgoing::CallError;

/// `None` where the error says it all.
pub(super) fn of(error: &CallError, shows_something: bool) -> Option<&'static str> {
    match error {
        CallError::Refused { status: 401 | 403, .. } if shows_something => {
            Some("It does not take the user and password, or the token, that it was shown.")
        }
        CallError::Refused { status: 401 | 403, .. } => Some(
            "It asks who we are: --prometheus.user with --prometheus.password-file, or --prometheus.bearer-token-file.",
        ),
        CallError::Refused { status: 422, .. } => {
            Some("If that is too much for it: one --cluster, a shorter --range, or a longer --step.")
        }
        CallError::Refused { status: 300..=399 | 404 | 405, .. } | CallError::NotUnderstood { .. } => {
            Some("Is --prometheus.url the address of a Prometheus, with its route prefix if it has one?")
        }
        CallError::Refused { status: 400, detail, .. } if detail.contains("HTTPS server") => {
            Some("It speaks TLS: the URL begins with https://.")
        }
        CallError::Unreachable { detail, .. }
            if ["UnknownIssuer", "BadSignature"].iter().any(|why| detail.contains(why)) =>
        {
            Some("Its certificate is signed by nobody that we trust: --prometheus.ca-file names the authority.")
        }
        // Servers that speak TLS 1.2, 1.3 and Go's own words for "none was shown". With 1.3 the handshake is over for us
        // before the server says no, and its word may come after the end of the connection has been noticed.
        CallError::Unreachable { detail, .. }
            if ["CertificateRequired", "BadCertificate", "HandshakeFailure", "connection was not ready"]
                .iter()
                .any(|why| detail.contains(why)) =>
        {
            Some("It asks for a client certificate that it knows: --prometheus.cert-file and --prometheus.key-file.")
        }
        CallError::Unreachable { detail, .. } if detail.contains("InvalidContentType") => {
            Some("It speaks no TLS: the URL begins with http://.")
        }
        _ => None,
    }
}
