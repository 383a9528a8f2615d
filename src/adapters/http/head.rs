//! What the head of a request must be like, whatever the route: within its limits, and with one meaning.

use axum::{
    extract::Request,
    http::{StatusCode, Version, header, uri::Authority},
};

/// Many times the size of tokens, passwords and trace headers. As HTTP/2 counts: names, values, and
/// [`HEADER_OVERHEAD_BYTES`] for each header.
pub(super) const MAX_HEADER_BYTES: u32 = 64 << 10;
pub(super) const HEADER_OVERHEAD_BYTES: usize = 32;
/// Three times what a browser behind two proxies sends.
pub(super) const MAX_HEADERS: usize = 100;

/// Why a request's head is not acceptable: an extension of the request, so that its refusal is like any other.
#[derive(Clone)]
pub(super) struct HeadProblem {
    pub(super) status: StatusCode,
    pub(super) what: String,
}

pub(super) fn problem(request: &Request) -> Option<HeadProblem> {
    let headers = request.headers();
    // The library holds only the buffer of HTTP/1 to a limit, and only the size of HTTP/2's headers.
    let bytes = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES
    };
    if headers.len() > MAX_HEADERS || headers.iter().map(bytes).sum::<usize>() > MAX_HEADER_BYTES as usize {
        let what = format!("the request has more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them");
        return Some(HeadProblem { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what });
    }
    // Proxies and this server could each believe another one of several.
    let mut hosts = headers.get_all(header::HOST).iter();
    let host_is_wrong = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).is_err(),
        (None, _) => request.uri().authority().is_none() && request.version() >= Version::HTTP_11,
        (Some(_), Some(_)) => true,
    };
    let what = if host_is_wrong {
        "the request must have one valid Host header"
    } else if headers.get_all(header::ORIGIN).iter().nth(1).is_some() {
        "the request has several Origin headers"
    } else {
        return None;
    };
    Some(HeadProblem { status: StatusCode::BAD_REQUEST, what: what.to_owned() })
}
