//! Refuses what another site's page makes a browser send.

use http::{
    HeaderMap, Uri,
    header::{HOST, ORIGIN},
    request::Parts,
};

use super::error::Refusal;

/// Refuses a request of which the browser says that another site asks. `Sec-Fetch-Site` says it, wherever the connection is
/// secure or local; otherwise `Origin` does, by another host than the request's. A browser sends one of them with every
/// `POST`; a program sends neither.
pub(super) fn check(parts: &Parts) -> Result<(), Refusal> {
    let mut sites = parts.headers.get_all("sec-fetch-site").iter().peekable();
    let own = if sites.peek().is_some() {
        // Several lines are nothing that a browser sends: each has to be harmless.
        sites.all(|site| site == "same-origin" || site == "none")
    } else {
        let mut origins = parts.headers.get_all(ORIGIN).iter();
        origins.all(|origin| {
            let host = host(&parts.headers, &parts.uri);
            host.is_some_and(|host| origin.to_str().is_ok_and(|origin| is_of(origin, host)))
        })
    };
    if own {
        Ok(())
    } else {
        Err(Refusal::cross_origin())
    }
}

/// The host that the request is for, with its port.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<&'a str> {
    // HTTP/2 has no `Host`.
    let named = headers.get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| uri.authority().map(http::uri::Authority::as_str))
}

/// Whether this origin has this host: `https://admin.example` and `admin.example`. The opaque origin `null` has none.
fn is_of(origin: &str, host: &str) -> bool {
    let rest = origin.split_once("://");
    rest.is_some_and(|(_, named)| named.eq_ignore_ascii_case(host))
}
