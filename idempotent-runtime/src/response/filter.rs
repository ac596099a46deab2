//! Which headers of a response are stored.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, GetAll},
};

use super::kept::StoredHeaders;
use crate::names::is_header_name;

/// Decides for the headers of one response.
pub(super) struct Filter<'a> {
    /// What `Connection` says, if it is there.
    connection: Option<GetAll<'a, HeaderValue>>,
    chosen: Option<&'a StoredHeaders>,
    keeps_length: bool,
}

impl<'a> Filter<'a> {
    /// Decides by the route's choice. `keeps_length` where `Content-Length` is not that of the body.
    pub(super) fn new(
        headers: &'a HeaderMap,
        chosen: Option<&'a StoredHeaders>,
        keeps_length: bool,
    ) -> Self {
        let connection = headers.contains_key(CONNECTION);
        Self {
            connection: connection.then(|| headers.get_all(CONNECTION)),
            chosen,
            keeps_length,
        }
    }

    pub(super) fn keeps(&self, name: &HeaderName) -> bool {
        if self.keeps_length && name == CONTENT_LENGTH {
            return true;
        }
        let text = name.as_str();
        !is_never_stored(text.as_bytes())
            && !self.connection_names(text)
            && self.chosen.is_none_or(|chosen| chosen.keeps(name))
    }

    /// Whether a `Connection` header declares this one hop-by-hop.
    fn connection_names(&self, name: &str) -> bool {
        let lines = self.connection.iter().flatten();
        lines
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Checks the names of a list, in a constant too.
///
/// # Panics
///
/// If one is not a header name or, in a list of headers to keep, is never stored.
pub(crate) const fn check_names(names: &[&str], keep: bool) {
    let mut at = 0;
    while at < names.len() {
        check_name(names[at], keep);
        at += 1;
    }
}

/// Checks one name. See [`check_names`].
pub(crate) const fn check_name(name: &str, keep: bool) {
    assert!(
        is_header_name(name),
        "one of the headers has an invalid name: use letters, digits and `-`"
    );
    assert!(
        !keep || !is_never_stored_in_any_case(name),
        "one of the headers to keep is never stored, because it belongs to one exchange or to one client \
         (hop-by-hop headers, `Set-Cookie`, credentials, `Date`, `Content-Length`, trace and request ids): remove it"
    );
}

/// [`is_never_stored`] for a name as an application writes it.
const fn is_never_stored_in_any_case(name: &str) -> bool {
    // Longer than every such name; of a longer one the beginning decides.
    let mut lower = [0; 64];
    let bytes = name.as_bytes();
    let mut len = 0;
    while len < bytes.len() && len < lower.len() {
        lower[len] = bytes[len].to_ascii_lowercase();
        len += 1;
    }
    let (lower, _) = lower.split_at(len);
    is_never_stored(lower)
}

/// Whether the header of this name, in lower case, is never stored.
pub(crate) const fn is_never_stored(name: &[u8]) -> bool {
    is_hop_by_hop(name) || is_of_the_client(name) || is_of_the_exchange(name) || is_trace(name)
}

/// RFC 9110, section 7.6.1, and what older software sends instead.
const fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(
        name,
        b"connection"
            | b"keep-alive"
            | b"proxy-connection"
            | b"te"
            | b"trailer"
            | b"transfer-encoding"
            | b"upgrade"
    )
}

/// Sessions, challenges, credentials and tokens: a replay must not hand them to anyone who sends the key, and a token
/// that is good for one request is useless in a replay.
const fn is_of_the_client(name: &[u8]) -> bool {
    matches!(
        name,
        // Sessions.
        b"set-cookie"
            | b"set-cookie2"
            // Challenges and what follows them: RFC 9110, section 11, RFC 8053, RFC 8555 and RFC 9449.
            | b"www-authenticate"
            | b"authentication-info"
            | b"authentication-control"
            | b"optional-www-authenticate"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"proxy-authentication-info"
            | b"replay-nonce"
            | b"dpop-nonce"
            // Credentials that services return, as after a login.
            | b"authorization"
            | b"x-authorization"
            | b"x-api-key"
            | b"api-key"
            | b"apikey"
            | b"x-apikey"
            | b"x-auth-token"
            | b"auth-token"
            | b"x-access-token"
            | b"access-token"
            | b"x-refresh-token"
            | b"refresh-token"
            | b"x-id-token"
            | b"x-session-token"
            | b"x-subject-token"
            | b"x-storage-token"
            | b"x-jwt-token"
            | b"x-amz-security-token"
            | b"x-amzn-remapped-authorization"
            | b"x-amzn-remapped-www-authenticate"
    ) || contains(name, *b"csrf")
        || contains(name, *b"xsrf")
}

/// Whether these four bytes are somewhere in a name.
const fn contains(name: &[u8], part: [u8; 4]) -> bool {
    let mut at = 0;
    while at + part.len() <= name.len() {
        if name[at] == part[0]
            && name[at + 1] == part[1]
            && name[at + 2] == part[2]
            && name[at + 3] == part[3]
        {
            return true;
        }
        at += 1;
    }
    false
}

/// Written by the server for every response.
const fn is_of_the_exchange(name: &[u8]) -> bool {
    matches!(name, b"date" | b"content-length")
}

/// Ids and timings of one request: W3C Trace Context and Baggage, B3, Jaeger, and the common vendors.
const fn is_trace(name: &[u8]) -> bool {
    matches!(
        name,
        b"traceparent"
            | b"tracestate"
            | b"traceresponse"
            | b"baggage"
            | b"server-timing"
            | b"request-id"
            | b"x-request-id"
            | b"correlation-id"
            | b"x-correlation-id"
            | b"x-trace-id"
            | b"b3"
            | b"uber-trace-id"
            | b"sentry-trace"
            | b"x-amzn-trace-id"
            | b"x-amzn-requestid"
            | b"x-amz-request-id"
            | b"x-cloud-trace-context"
            | b"x-ms-request-id"
    ) || starts_with(name, b"x-b3-")
        || starts_with(name, b"x-datadog-")
}

/// `slice::starts_with` in a constant.
const fn starts_with(name: &[u8], start: &[u8]) -> bool {
    let mut at = 0;
    while at < start.len() {
        if at == name.len() || name[at] != start[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(headers: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let filter = Filter::new(&map, None, false);
        map.keys()
            .filter(|name| filter.keeps(name))
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn headers_of_one_exchange_are_left_out() {
        let names = "connection keep-alive proxy-connection te trailer transfer-encoding upgrade set-cookie \
            set-cookie2 www-authenticate authentication-info proxy-authenticate proxy-authorization \
            proxy-authentication-info date content-length traceparent tracestate traceresponse baggage \
            server-timing request-id x-request-id correlation-id x-correlation-id x-trace-id b3 \
            x-b3-traceid x-b3-sampled x-datadog-trace-id uber-trace-id sentry-trace x-amzn-trace-id \
            x-amzn-requestid x-amz-request-id x-cloud-trace-context x-ms-request-id Set-Cookie DATE \
            authorization x-authorization x-api-key api-key apikey x-apikey x-auth-token auth-token \
            x-access-token access-token x-refresh-token refresh-token x-id-token x-session-token \
            x-subject-token x-storage-token x-jwt-token x-amz-security-token \
            x-amzn-remapped-authorization x-amzn-remapped-www-authenticate authentication-control \
            optional-www-authenticate replay-nonce dpop-nonce csrf-token x-csrf-token x-xsrf-token \
            X-CSRFToken";
        for name in names.split_whitespace() {
            assert_eq!(kept(&[(name, "1")]), [""; 0], "{name}");
        }
    }

    #[test]
    fn headers_of_the_answer_are_kept() {
        for name in [
            "content-type",
            "location",
            "etag",
            "vary",
            "cache-control",
            "retry-after",
            "content-encoding",
            "x-ratelimit-left",
            "link",
            "x-b3",
            "authorization-hint",
            "x-token-count",
            "x-api-version",
            "expires",
            "x-custom",
        ] {
            assert_eq!(kept(&[(name, "1")]), [name]);
        }
    }

    #[test]
    fn connection_names_further_ones() {
        let headers = [
            ("connection", "close, X-Hop ,,x-other"),
            ("connection", "x-third"),
            ("x-hop", "1"),
            ("x-other", "1"),
            ("x-third", "1"),
            ("x-hopper", "1"),
        ];
        assert_eq!(kept(&headers), ["x-hopper"]);
    }
}
