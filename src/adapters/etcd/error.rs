//! What an error of the client means for a fact, and for a defragmentation.

use std::error::Error as StdError;

use etcd_client::Error;
use tonic::{Code, Status};

use super::{
    channel,
    denied::{self, EtcdUser},
};
pub(super) use crate::adapters::causes::chain;
use crate::core::{
    cluster::{Unknown, UnknownKind},
    run::DefragError,
};

/// A gRPC status for people: the message and its cause, without the dump of metadata.
fn describe(status: &Status) -> String {
    match status.source() {
        Some(source) => chain(source),
        // tonic's text for an answer that is not gRPC.
        None if status.message().contains("mapped from HTTP status code") => {
            format!("{}: another server or a proxy answers there, not etcd", status.message())
        }
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// The failures of several URLs, each like `URL: CAUSE`, in one text. A common cause is there once.
pub(super) fn together(failures: &[Unknown]) -> String {
    let mut causes: Vec<(&str, String)> = Vec::new();
    for failure in failures {
        let (url, cause) = failure.detail.split_once(": ").unwrap_or(("", &failure.detail));
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, urls)) => *urls = format!("{urls}, {url}"),
            None => causes.push((cause, url.to_owned())),
        }
    }
    let texts = causes
        .into_iter()
        .map(|(cause, urls)| if urls.is_empty() { cause.to_owned() } else { format!("{urls}: {cause}") });
    texts.collect::<Vec<_>>().join("; ")
}

/// Releases up to 3.5 send denials with code 2 (unknown), so the text is checked as well.
pub(super) fn is_permission_denied(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if status.code() == Code::PermissionDenied || status.message().contains("auth: permission denied"))
}

/// The server does not accept logins.
pub(super) fn is_auth_off(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// Another client has compacted further in the meantime: the requested state is reached.
pub(super) fn is_compacted_already(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("required revision has been compacted"))
}

/// Why a fact is unknown. `rpc` and `etcd_user` are for the text of a denial.
pub(super) fn unknown(rpc: &str, etcd_user: &EtcdUser, error: &Error) -> Unknown {
    let Error::GRpcStatus(status) = error else {
        return Unknown::new(UnknownKind::Other, chain(error));
    };
    let said = describe(status);
    if let Some(kind) = denied::kind(status) {
        return Unknown::new(kind, denied::explain(kind, rpc, etcd_user, &said));
    }
    let kind = match status.code() {
        Code::DeadlineExceeded => UnknownKind::TimedOut,
        _ if is_tls(status, &said) => UnknownKind::Tls,
        _ if status.source().is_some() || status.code() == Code::Unavailable => UnknownKind::Unreachable,
        _ => UnknownKind::Other,
    };
    Unknown::new(kind, said)
}

/// A handshake that failed on our side, or on the server's, which reports it in an alert.
fn is_tls(status: &Status, said: &str) -> bool {
    const TEXTS: [&str; 3] = ["invalid peer certificate", "received fatal alert", "received corrupt message"];
    status.source().is_some() && TEXTS.iter().any(|text| said.contains(text))
}

/// Whether a failed Defragment has certainly ended on the server.
pub(super) fn defrag(etcd_user: &EtcdUser, error: &Error) -> DefragError {
    // Only etcd's own error texts prove that it is finished: an error of a proxy, or a stream that just ends, has the
    // same code. Following an idle member costs seconds at most.
    const ETCD_SAYS: [&str; 5] =
        ["etcdserver: ", "rpc not supported for learner", "mvcc: ", "failed to ", "member/snap"];
    let Error::GRpcStatus(status) = error else {
        return DefragError::Lost(chain(error));
    };
    if channel::was_not_sent(error) {
        return DefragError::NotSent(unknown("Defragment", etcd_user, error));
    }
    let text = describe(status);
    if text.contains("no space left on device") {
        DefragError::DiskFull(text)
    } else if let Some(kind) = denied::kind(status) {
        DefragError::Denied(denied::explain(kind, "Defragment", etcd_user, &text))
    } else if status.source().is_none()
        && status.code() != Code::Unavailable
        && ETCD_SAYS.iter().any(|start| text.contains(start))
    {
        DefragError::Answered(text)
    } else {
        DefragError::Lost(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_of_the_server_counts_as_an_end() {
        let classify = |status: Status| defrag(&EtcdUser::default(), &Error::GRpcStatus(status));
        assert!(matches!(classify(Status::unknown("auth: permission denied")), DefragError::Denied(_)));
        let learner = Status::unavailable("etcdserver: rpc not supported for learner");
        assert!(matches!(classify(learner), DefragError::Lost(_)));
        assert!(matches!(classify(Status::unknown("etcdserver: corrupt cluster")), DefragError::Answered(_)));
        // What tonic makes of a proxy's 5xx, and of a stream that ends without a status.
        assert!(matches!(
            classify(Status::unknown("grpc-status header missing, mapped from HTTP status code 500")),
            DefragError::Lost(_)
        ));
        assert!(matches!(classify(Status::unknown("")), DefragError::Lost(_)));
        assert!(matches!(classify(Status::unavailable("etcdserver: server stopped")), DefragError::Lost(_)));
        assert!(matches!(classify(Status::cancelled("h2 reset")), DefragError::Lost(_)));
        let transport = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        assert!(matches!(classify(transport), DefragError::Lost(_)));
        let full = Status::unknown("write /var/lib/etcd/member/snap/db.tmp: no space left on device");
        assert!(matches!(classify(full), DefragError::DiskFull(_)));
    }

    #[test]
    fn a_cause_that_several_urls_have_in_common_is_named_once() {
        let failures = ["http://a:1: refused", "http://b:1: no answer: late", "http://c:1: refused", "no records"];
        let failures = failures.map(|detail| Unknown::new(UnknownKind::Unreachable, detail));
        let text = "http://a:1, http://c:1: refused; http://b:1: no answer: late; no records";
        assert_eq!(together(&failures), text);
    }

    #[test]
    fn denials_are_known_by_code_and_by_text() {
        let kind = |status: Status| unknown("Status", &EtcdUser::default(), &Error::GRpcStatus(status)).kind;
        assert_eq!(kind(Status::unknown("auth: permission denied")), UnknownKind::Denied);
        assert_eq!(kind(Status::permission_denied("etcdserver: permission denied")), UnknownKind::Denied);
        assert_eq!(kind(Status::unauthenticated("etcdserver: invalid auth token")), UnknownKind::Denied);
        assert_eq!(kind(Status::unavailable("etcdserver: no leader")), UnknownKind::Unreachable);
        assert_eq!(kind(Status::unknown("etcdserver: something")), UnknownKind::Other);
        let page = Status::unknown("grpc-status header missing, mapped from HTTP status code 404");
        let page = unknown("Status", &EtcdUser::default(), &Error::GRpcStatus(page));
        assert!(
            page.kind == UnknownKind::Other
                && page.detail.ends_with("404: another server or a proxy answers there, not etcd")
        );
    }
}
