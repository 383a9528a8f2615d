//! Which of a member's published client URLs leads to it from here.

use std::{collections::BTreeMap, net::IpAddr};

use hyper::Uri;

use crate::core::cluster::Member;

/// Puts the best URL of each member first: one that no other member publishes (a Service in front of all of them leads
/// to any), and that is not a loopback address. Apart from that, the order is etcd's, which is alphabetical.
pub(super) fn best_first(members: &mut [Member]) {
    // The usual case.
    if members.iter().all(|member| member.client_urls.len() < 2) {
        return;
    }
    let mut publishers: BTreeMap<String, usize> = BTreeMap::new();
    for url in members.iter().flat_map(|member| &member.client_urls) {
        *publishers.entry(url.clone()).or_default() += 1;
    }
    for member in members {
        member.client_urls.sort_by_key(|url| (publishers.get(url).is_some_and(|many| *many > 1), is_local(url)));
    }
}

/// Whether it is an address that means another machine on each machine.
fn is_local(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    let Some(host) = uri.as_ref().and_then(Uri::host) else { return false };
    let address: Option<IpAddr> = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    address.map_or(host == "localhost", |address| address.is_loopback() || address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::cluster::MemberId;

    fn chosen(urls: &[&[&str]]) -> Vec<String> {
        let mut members: Vec<_> = (1..)
            .zip(urls)
            .map(|(id, urls)| Member {
                id: MemberId(id),
                name: format!("etcd-{id}"),
                client_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                is_learner: false,
            })
            .collect();
        best_first(&mut members);
        members.into_iter().map(|member| member.client_urls.first().cloned().unwrap_or_default()).collect()
    }

    #[test]
    fn loopback_and_what_leads_to_any_member_come_after_what_leads_to_this_one() {
        let own = ["https://192.0.2.1:2379", "https://192.0.2.2:2379"];
        for elsewhere in
            ["https://127.0.0.1:2379", "https://[::1]:2379", "https://localhost:2379", "https://0.0.0.0:2379"]
        {
            assert_eq!(chosen(&[&[elsewhere, own[0]], &[elsewhere, own[1]]]), own, "{elsewhere}");
        }
        let service = "https://etcd.default.svc:2379";
        assert_eq!(chosen(&[&[service, own[0]], &[own[1], service]]), own);
        assert_eq!(chosen(&[&["https://127.0.0.1:2379", own[0]]]), [own[0]], "a member alone");
    }

    #[test]
    fn without_a_better_one_the_first_stands() {
        assert_eq!(
            chosen(&[&["http://127.0.0.1:1", "http://127.0.0.1:2"], &["http://127.0.0.1:3"], &[]]),
            ["http://127.0.0.1:1", "http://127.0.0.1:3", ""]
        );
        assert_eq!(chosen(&[&["http://b:1", "http://a:1"], &["not a url"]]), ["http://b:1", "not a url"]);
        let service = "https://etcd.default.svc:2379";
        assert_eq!(chosen(&[&[service, "https://127.0.0.1:2379"], &[service]])[1], service);
    }
}
