//! Whether a browser sent a request from our own page, and under one of our host names.

use std::net::IpAddr;

use axum::http::{HeaderMap, header, request::Parts};
use url::{Host, Url};

/// Why a request that changes something is refused; `None` if it is accepted. `external` is the origin of
/// `--web.external-url`. Only browsers send the headers that are checked here; other programs use the API.
pub(super) fn is_foreign(parts: &Parts, external: Option<&Url>) -> Option<&'static str> {
    let (site, origin) = (text(&parts.headers, "sec-fetch-site"), text(&parts.headers, header::ORIGIN.as_str()));
    if site.is_none() && origin.is_none() {
        return Some("The request has neither Origin nor Sec-Fetch-Site, which browsers send; programs use the API");
    }
    if site.is_some_and(|site| site != "same-origin") {
        return Some("The request comes from another site");
    }
    let is_ours = origin.is_none_or(|origin| {
        Url::parse(origin).is_ok_and(|origin| {
            external.is_some_and(|external| external.origin() == origin.origin()) || asked(parts, &origin)
        })
    });
    (!is_ours).then_some("The request comes from another site, or --web.external-url is not the URL of this page")
}

/// Whether a browser sent the request: only browsers say where a request comes from.
fn is_by_browser(parts: &Parts) -> bool {
    text(&parts.headers, "sec-fetch-site").is_some() || text(&parts.headers, header::ORIGIN.as_str()).is_some()
}

/// Whether another site's page sent the request. For requests without a token, to which a browser adds what they need
/// by itself: a password, a certificate, or that it is on this machine.
pub(super) fn is_of_another_site(parts: &Parts, external: Option<&Url>) -> bool {
    is_by_browser(parts) && is_foreign(parts, external).is_some()
}

/// Whether a browser used a foreign host name to get here. For requests that are allowed only because everything is on
/// loopback.
pub(super) fn is_rebound(parts: &Parts, external: Option<&Url>) -> bool {
    is_by_browser(parts) && !is_local(parts, external)
}

/// Whether the request was sent to a loopback name or address, or to the host of `--web.external-url`.
pub(super) fn is_local(parts: &Parts, external: Option<&Url>) -> bool {
    let Some(url) = authority(parts).and_then(|authority| Url::parse(&format!("http://{authority}/")).ok()) else {
        return false;
    };
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    is_loopback || external.is_some_and(|external| external.host() == url.host())
}

/// Whether this is the host and port that the request was sent to. The scheme may differ: a proxy may terminate TLS.
fn asked(parts: &Parts, origin: &Url) -> bool {
    let Some(authority) = authority(parts) else { return false };
    let Ok(asked) = Url::parse(&format!("{}://{authority}/", origin.scheme())) else { return false };
    asked.host() == origin.host() && asked.port_or_known_default() == origin.port_or_known_default()
}

/// HTTP/2 has it in the URI, HTTP/1 in a header.
fn authority(parts: &Parts) -> Option<String> {
    let in_address = parts.uri.authority().map(ToString::to_string);
    in_address.or_else(|| text(&parts.headers, header::HOST.as_str()).map(str::to_owned))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let request = headers.iter().fold(Request::post("/x"), |request, (name, value)| request.header(*name, *value));
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn only_our_own_page_may_send_forms() {
        let external = Url::parse("https://ops.example.org/defragd").ok();
        let (host, ours, fetch) = ("host", "http://127.0.0.1:9379", "sec-fetch-site");
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[(host, "127.0.0.1:9379"), ("origin", ours), (fetch, "same-origin")], true),
            (&[(host, "127.0.0.1:9379"), ("origin", ours)], true),
            (&[(host, "127.0.0.1:9379"), (fetch, "same-origin")], true),
            (&[(host, "backend:9379"), ("origin", "https://ops.example.org"), (fetch, "same-origin")], true),
            (&[(host, "defragd.example.org"), ("origin", "https://defragd.example.org")], true),
            (&[(host, "127.0.0.1:9379")], false),
            (&[(host, "127.0.0.1:9379"), ("origin", ours), (fetch, "cross-site")], false),
            (&[(host, "127.0.0.1:9379"), ("origin", ours), (fetch, "same-site")], false),
            (&[(host, "127.0.0.1:9379"), ("origin", ours), (fetch, "none")], false),
            (&[(host, "127.0.0.1:9379"), ("origin", "http://127.0.0.1:8080")], false),
            (&[(host, "127.0.0.1:9379"), ("origin", "http://evil.example")], false),
            (&[(host, "127.0.0.1:9379"), ("origin", "null"), (fetch, "same-origin")], false),
            (&[("origin", ours)], false),
        ];
        for (headers, expected) in table {
            assert_eq!(is_foreign(&parts(headers), external.as_ref()).is_none(), *expected, "{headers:?}");
        }
    }

    #[test]
    fn a_foreign_name_that_leads_to_loopback_is_noticed() {
        let external = Url::parse("https://ops.example.org").ok();
        for host in ["localhost:9379", "127.0.0.1", "127.1.2.3:1", "[::1]:9379", "a.localhost", "ops.example.org:1"] {
            assert!(is_local(&parts(&[("host", host)]), external.as_ref()), "{host}");
        }
        for host in ["evil.example:9379", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""] {
            let headers = [("host", host), ("origin", "http://evil.example:9379"), ("sec-fetch-site", "same-origin")];
            assert!(is_rebound(&parts(&headers), external.as_ref()), "{host}");
            assert!(!is_rebound(&parts(&[("host", host)]), external.as_ref()), "{host}: no browser");
        }
    }
}
