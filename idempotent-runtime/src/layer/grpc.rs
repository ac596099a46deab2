//! gRPC calls, which the engine cannot store: their outcome is in trailers, and a stream of requests has no end before
//! its answers.

use http::{HeaderMap, header::CONTENT_TYPE};

/// Whether this is the head of a gRPC call: of gRPC over HTTP/2, or of gRPC-Web.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    const PREFIX: &[u8] = b"application/grpc";

    let content_type = headers.get(CONTENT_TYPE);
    let prefix = content_type.and_then(|value| value.as_bytes().get(..PREFIX.len()));
    prefix.is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_call_is_known_by_its_media_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/gRPC+json", true),
            ("application/grpc-web-text", true),
            ("application/grpc; charset=utf-8", true),
            ("application/json", false),
            ("text/plain; application/grpc", false),
            ("application/grp", false),
        ] {
            let value = HeaderValue::from_static(content_type);
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value)]);
            assert_eq!(is_call(&headers), expected, "{content_type}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }
}
