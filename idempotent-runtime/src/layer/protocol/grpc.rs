//! gRPC calls, known by their media type.

#[cfg(feature = "grpc")]
use http::HeaderValue;
use http::{HeaderMap, header::CONTENT_TYPE};

const PREFIX: &[u8] = b"application/grpc";
#[cfg(feature = "grpc")]
const WEB: &[u8] = b"-web";

/// Whether this is the head of a gRPC call: of gRPC over HTTP/2, or of gRPC-Web.
pub(super) fn is_call(headers: &HeaderMap) -> bool {
    format(headers).is_some()
}

/// Whether this is the head of a call or response of gRPC over HTTP/2.
#[cfg(feature = "grpc")]
pub(super) fn is_native(headers: &HeaderMap) -> bool {
    format(headers).is_some_and(|format| matches!(format, [] | [b'+' | b';' | b' ', ..]))
}

/// The media type of the stored form of a response of gRPC over HTTP/2.
#[cfg(feature = "grpc")]
pub(super) fn as_web(headers: &HeaderMap) -> Option<HeaderValue> {
    let format = format(headers).filter(|_| is_native(headers))?;
    HeaderValue::from_bytes(&[PREFIX, WEB, format].concat()).ok()
}

/// The media type of a response of which this is the stored form.
#[cfg(feature = "grpc")]
pub(super) fn as_native(headers: &HeaderMap) -> Option<HeaderValue> {
    let format = format(headers)?.strip_prefix(WEB)?;
    HeaderValue::from_bytes(&[PREFIX, format].concat()).ok()
}

/// What follows the name of the protocol in its media type.
fn format(headers: &HeaderMap) -> Option<&[u8]> {
    let content_type = headers.get(CONTENT_TYPE)?.as_bytes();
    let (prefix, format) = content_type.split_at_checked(PREFIX.len())?;
    prefix.eq_ignore_ascii_case(PREFIX).then_some(format)
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
