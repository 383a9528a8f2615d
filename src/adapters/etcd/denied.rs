//! What a denial by etcd means, in words: who was denied what, and what to do.
//!
//! It differs between releases: up to 3.5, maintenance calls are denied with code 2 (unknown) and a text that begins
//! with `auth: `, later ones with a code of their own and `etcdserver: `. So the text is checked.

use tonic::{Code, Status};

use crate::core::{cluster::UnknownKind, version::ReadRpc};

/// Whether the server denied a call, and how.
pub(super) fn kind(status: &Status) -> Option<UnknownKind> {
    let text = status.message();
    // An error of the transport is not an answer of etcd.
    if std::error::Error::source(status).is_some() {
        return None;
    }
    if text.contains("authentication failed") {
        Some(UnknownKind::LoginRefused)
    } else if text.contains("user name is empty") {
        Some(UnknownKind::LoginMissing)
    } else if matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
        || ["auth: ", "permission denied", "invalid auth token", "user name not found", "revision of auth store is old"]
            .iter()
            .any(|denial| text.contains(denial))
    {
        Some(UnknownKind::Denied)
    } else {
        None
    }
}

/// Whether the server does not know the login of a call, or requires one. Then it has not executed the call.
pub(super) fn is_unknown_login(status: &Status) -> bool {
    const TEXTS: [&str; 4] =
        ["invalid auth token", "revision of auth store is old", "revision in header is old", "user name is empty"];
    kind(status).is_some() && TEXTS.iter().any(|text| status.message().contains(text))
}

/// Who defragd is for etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EtcdUser {
    pub(super) user: Option<String>,
    /// The common name of the client certificate, which etcd uses as the user's name without a login.
    pub(super) common_name: Option<String>,
    /// Messages name flags instead of keys of a configuration file.
    pub(super) by_flags: bool,
}

impl EtcdUser {
    fn words(&self) -> String {
        match (&self.user, &self.common_name) {
            (Some(user), _) => format!("user {user:?}"),
            (None, Some(name)) => format!("user {name:?} (the common name of the client certificate)"),
            (None, None) => "a client without a user".to_owned(),
        }
    }

    fn name(&self) -> &str {
        self.user.as_deref().or(self.common_name.as_deref()).unwrap_or("NAME")
    }
}

/// One sentence: which RPC was denied, to whom, and what to do. `said` is etcd's own text.
pub(super) fn explain(kind: UnknownKind, rpc: &str, etcd_user: &EtcdUser, said: &str) -> String {
    let (user, name) = (etcd_user.words(), etcd_user.name());
    match kind {
        UnknownKind::LoginRefused => format!(
            "{rpc}: etcd rejected the login of {user} ({said}): the password is wrong, or there is no such user; \
            check with `etcdctl --user {name} user list`"
        ),
        UnknownKind::LoginMissing => {
            let give = if etcd_user.by_flags {
                "pass --user with a user that has the root role, and --password-file"
            } else {
                "configure a user with the root role (auth.username, auth.password_file)"
            };
            format!("{rpc} was denied to {user} ({said}): authentication is on, and defragd must log in: {give}")
        }
        _ if ["token", "revision of auth store is old", "revision in header is old"]
            .iter()
            .any(|text| said.contains(text)) =>
        {
            format!("{rpc}: etcd no longer knows the login of {user} ({said}); logging in again")
        }
        _ => {
            let also = rpc.parse().map(|read: ReadRpc| format!(" and {rpc} in {}", read.root_only_in()));
            let also = also.unwrap_or_default();
            format!(
                "{rpc} was denied to {user} ({said}): defragd needs the root role, as Defragment does in every \
                version{also}: `etcdctl user grant-role {name} root`"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(status: &Status, etcd_user: &EtcdUser) -> (Option<UnknownKind>, String) {
        let kind = kind(status);
        (kind, kind.map_or(String::new(), |kind| explain(kind, "Status", etcd_user, status.message())))
    }

    #[test]
    fn each_release_s_denial_names_the_user_and_what_to_do() {
        let plain = EtcdUser { user: Some("plain".to_owned()), common_name: Some("cn".to_owned()), by_flags: false };
        for status in
            [Status::unknown("auth: permission denied"), Status::permission_denied("etcdserver: permission denied")]
        {
            let (kind, words) = reported(&status, &plain);
            assert_eq!(kind, Some(UnknownKind::Denied));
            assert!(words.contains("Status was denied to user \"plain\""), "{words}");
            assert!(words.contains("etcdctl user grant-role plain root"), "{words}");
            assert!(words.contains("and Status in 3.4.42 and later 3.4, 3.5.28 to 3.5.31, "), "{words}");
        }
        let wrong = Status::invalid_argument("etcdserver: authentication failed, invalid user ID or password");
        let (kind, words) = reported(&wrong, &plain);
        assert_eq!(kind, Some(UnknownKind::LoginRefused));
        assert!(words.contains("the password is wrong, or there is no such user"), "{words}");
        for text in ["etcdserver: user name is empty", "auth: user name is empty"] {
            let (kind, words) = reported(&Status::invalid_argument(text), &EtcdUser::default());
            assert_eq!(kind, Some(UnknownKind::LoginMissing), "{text}");
            assert!(words.contains("auth.username"), "{words}");
            let by_flags = EtcdUser { by_flags: true, ..EtcdUser::default() };
            let (_, words) = reported(&Status::invalid_argument(text), &by_flags);
            assert!(words.contains("pass --user ") && !words.contains("auth."), "{words}");
        }
        let (kind, words) = reported(&Status::unauthenticated("etcdserver: invalid auth token"), &plain);
        assert_eq!(kind, Some(UnknownKind::Denied));
        assert!(words.contains("logging in again") && !words.contains("grant-role"), "{words}");
    }

    #[test]
    fn a_certificate_s_name_is_reported_if_no_user_is_configured() {
        let etcd_user = EtcdUser { common_name: Some("reader".to_owned()), ..EtcdUser::default() };
        let (_, words) = reported(&Status::unknown("auth: permission denied"), &etcd_user);
        assert!(words.contains("\"reader\" (the common name of the client certificate)"), "{words}");
    }

    #[test]
    fn what_the_transport_says_is_no_denial() {
        let error = Status::from_error(Box::new(std::io::Error::other("permission denied")));
        assert_eq!(kind(&error), None);
        assert_eq!(kind(&Status::unavailable("etcdserver: no leader")), None);
    }
}
