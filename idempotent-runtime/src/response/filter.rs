//! Which headers of a response are stored.

use http::{HeaderMap, HeaderName, header::CONNECTION};

/// Decides for the headers of one response.
pub(super) struct Filter<'a> {
    headers: &'a HeaderMap,
}

impl<'a> Filter<'a> {
    pub(super) fn new(headers: &'a HeaderMap) -> Self {
        Self { headers }
    }

    pub(super) fn keeps(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        !(is_hop_by_hop(text)
            || is_of_the_client(text)
            || is_of_the_exchange(text)
            || is_trace(text)
            || self.connection_names(text))
    }

    /// Whether a `Connection` header declares this one hop-by-hop.
    fn connection_names(&self, name: &str) -> bool {
        let lines = self.headers.get_all(CONNECTION);
        lines
            .iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .any(|option| option.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// RFC 9110, section 7.6.1, and what older software sends instead.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Sessions and authentication: a replay must not hand them to anyone who sends the key.
fn is_of_the_client(name: &str) -> bool {
    matches!(
        name,
        "set-cookie"
            | "set-cookie2"
            | "www-authenticate"
            | "authentication-info"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
    )
}

/// Written by the server for every response.
fn is_of_the_exchange(name: &str) -> bool {
    matches!(name, "date" | "content-length")
}

/// Ids and timings of one request: W3C Trace Context and Baggage, B3, Jaeger, and the common vendors.
fn is_trace(name: &str) -> bool {
    matches!(
        name,
        "traceparent"
            | "tracestate"
            | "traceresponse"
            | "baggage"
            | "server-timing"
            | "request-id"
            | "x-request-id"
            | "correlation-id"
            | "x-correlation-id"
            | "x-trace-id"
            | "b3"
            | "uber-trace-id"
            | "sentry-trace"
            | "x-amzn-trace-id"
            | "x-amzn-requestid"
            | "x-amz-request-id"
            | "x-cloud-trace-context"
            | "x-ms-request-id"
    ) || name.starts_with("x-b3-")
        || name.starts_with("x-datadog-")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn kept(headers: &[(&str, &str)]) -> Vec<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        let filter = Filter::new(&map);
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
            x-amzn-requestid x-amz-request-id x-cloud-trace-context x-ms-request-id Set-Cookie DATE";
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
