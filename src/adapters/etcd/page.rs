//! Where the metrics pages are, if not at the client URLs, and with which credentials they are read.
//!
//! Of the cluster's credentials only the CAs are used there: no password is sent to a page, and a client certificate
//! only if it is configured for the pages.

use std::sync::Arc;

use super::{
    CredentialFiles, Fence,
    connect::{ConnectError, Connection},
    sources::Sources,
};
use crate::{
    core::cluster::{Fact, Member, Unknown, UnknownKind},
    ports::access::{MetricsPage, TlsFiles},
};

/// The files for the pages, which are read together with those of the cluster.
pub(super) fn files(page: &MetricsPage, cluster: &CredentialFiles) -> CredentialFiles {
    let own = page.tls.clone().unwrap_or_default();
    let tls = TlsFiles { ca_file: own.ca_file.or_else(|| cluster.tls.ca_file.clone()), ..own };
    CredentialFiles { tls, user: None }
}

/// The client for the pages, with the current content of the files; `None` if the pages are at the client URLs. Returns
/// `in_use` if its credentials are the same. Blocks.
pub(super) fn renewed(
    sources: &Sources,
    in_use: Option<&Arc<Connection>>,
) -> Result<Option<Arc<Connection>>, ConnectError> {
    let Some(page) = &sources.pages else { return Ok(None) };
    let files = files(page, &sources.files);
    let read = files.read()?;
    if let Some(same) = in_use.filter(|in_use| in_use.credentials == read) {
        return Ok(Some(Arc::clone(same)));
    }
    let new = Connection::new(&files, read, sources)?;
    Ok(Some(Arc::new(new)))
}

pub(super) fn url(pages: &MetricsPage, fence: Option<&Fence>, client_url: &str, member: &Member) -> Fact<String> {
    let refused = |why| Unknown::new(UnknownKind::Other, why);
    let page = pages.url.of(client_url, &member.name).map_err(|why| refused(why.to_string()))?;
    if let Some(fence) = fence {
        fence(&page).map_err(|why| refused(format!("{page} is not dialled: {why}")))?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapters::etcd::EtcdCluster,
        core::page::PageUrl,
        ports::{
            access::User,
            etcd::{Etcd, Renewal},
        },
    };

    #[tokio::test]
    async fn the_files_for_pages_are_looked_at_again_and_broken_ones_are_not_taken() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let pki = |name: &str| testkit::Pki::create(&dir.path().join(name)).expect("certificates");
        let (old, new) = (pki("old"), pki("new"));
        let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
        let put = |from: &testkit::Identity| {
            std::fs::copy(&from.cert, &cert).expect("copied");
            std::fs::copy(&from.key, &key).expect("copied");
        };
        put(old.client());
        let pages = MetricsPage {
            url: PageUrl::parse("https://{host}:1").expect("good"),
            tls: Some(TlsFiles {
                ca_file: Some(old.ca().to_owned()),
                cert_file: Some(cert.clone()),
                key_file: Some(key.clone()),
            }),
        };
        let sources =
            Sources { endpoints: vec!["http://127.0.0.1:1".to_owned()], pages: Some(pages), ..Sources::default() };
        let cluster = EtcdCluster::open(sources).expect("whole");
        assert_eq!(cluster.renew().await, Renewal::Unchanged);
        put(new.client());
        assert_eq!(cluster.renew().await, Renewal::Applied);
        assert_eq!(cluster.renew().await, Renewal::Unchanged);
        std::fs::copy(&old.client().key, &key).expect("copied");
        let refused = cluster.renew().await;
        assert!(matches!(&refused, Renewal::Refused(why) if why.contains("do not belong together")), "{refused:?}");
    }

    #[tokio::test]
    async fn broken_files_for_pages_do_not_keep_the_clusters_own_from_being_loaded() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a directory");
        let pki = testkit::Pki::create(&dir.path().join("pki")).expect("certificates");
        let (password, ca) = (dir.path().join("password"), dir.path().join("ca"));
        std::fs::write(&password, "one").expect("written");
        std::fs::copy(pki.ca(), &ca).expect("copied");
        let tls = Some(TlsFiles { ca_file: Some(ca.clone()), ..TlsFiles::default() });
        let pages = MetricsPage { url: PageUrl::parse("https://{host}:1").expect("good"), tls };
        let user = User { username: "root".to_owned(), password_file: password.clone() };
        let files = CredentialFiles { user: Some(user), ..CredentialFiles::default() };
        let endpoints = vec!["http://127.0.0.1:1".to_owned()];
        let sources = Sources { endpoints, files, pages: Some(pages), ..Sources::default() };
        let cluster = EtcdCluster::open(sources).expect("whole");
        std::fs::remove_file(&ca).expect("removed");
        std::fs::write(&password, "two").expect("written");
        let reported = cluster.renew().await;
        assert!(matches!(&reported, Renewal::Refused(why) if why.contains("metrics pages: ")), "{reported:?}");
        let user = cluster.connected().connection.credentials.user.clone();
        assert_eq!(user, Some(("root".to_owned(), "two".to_owned())));
    }
}
