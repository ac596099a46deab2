//! [`StoredResponse`]: the bytes of one response, and what is kept of it.

use std::{error::Error, fmt};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, response::Parts};

use super::{
    codec,
    filter::Filter,
    form::{self, Flaw},
    kept::StoredHeaders,
    limits::{NotStorable, ResponseLimits},
};

/// A response in the form in which it is stored. Clones share the bytes.
///
/// Status, headers and body are kept, so that a replay is the same answer byte by byte. Headers that belong to
/// one exchange or to one client are left out:
///
/// 1. hop-by-hop headers, and those that `Connection` names;
/// 2. `Set-Cookie` and the headers of authentication: a replay must not hand out a session;
/// 3. `Date` and `Content-Length`, which the server writes for each response. A response to HEAD, and one with 204 or 304,
///    keeps its `Content-Length`, which is that of another response;
/// 4. ids and timings of traces and requests, such as `traceparent` and `X-Request-Id`: they name the
///    execution, not the replay.
///
/// Repeated headers keep their order and number.
///
/// `Debug` shows status and size only: bodies are not for logs.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoredResponse(pub(super) Bytes);

/// The bytes of a record cannot be read as a response: they are damaged, belong to another record, or were written by
/// a newer version or with other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptResponse(Flaw);

impl StoredResponse {
    /// Encodes the parts of a response that are stored: its headers, as far as the route `chosen` them and they may be
    /// stored at all. `method` is that of the request.
    ///
    /// # Errors
    ///
    /// If the response exceeds one of the limits. They are checked before anything is copied.
    pub(crate) fn encode(
        head: &Parts,
        body: &[u8],
        limits: &ResponseLimits,
        chosen: Option<&StoredHeaders>,
        method: Option<&Method>,
    ) -> Result<Self, NotStorable> {
        if body.len() > limits.max_body {
            return Err(NotStorable::BodyTooLarge);
        }
        let filter = Filter::new(
            &head.headers,
            chosen,
            says_another_length(method, head.status),
        );
        let keeps = |name: &HeaderName| filter.keeps(name);
        codec::encode(head.status, &head.headers, keeps, body, limits).map(Self)
    }

    /// A response as a store kept it.
    ///
    /// # Errors
    ///
    /// If the bytes are not exactly those of one stored response.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, CorruptResponse> {
        match form::check(&bytes) {
            // The content is checked when it is opened.
            Some(checked) => checked.map(|()| Self(bytes)).map_err(Into::into),
            None => Ok(Self::from_form(bytes)?),
        }
    }

    /// A response that is neither compressed nor encrypted.
    pub(super) fn from_form(bytes: Bytes) -> Result<Self, Flaw> {
        let mut reader = codec::Reader::new(&bytes)?;
        while reader.header()?.is_some() {}
        reader.body()?;
        Ok(Self(bytes))
    }

    /// The same in bytes of its own.
    #[cfg(feature = "memory")]
    pub(crate) fn copied(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The status, the stored headers and the body. Values and body share the stored bytes.
    ///
    /// # Errors
    ///
    /// If it is compressed or encrypted: only the engine opens such responses. Any other value of this type was
    /// checked when it was made.
    pub fn decode(&self) -> Result<(StatusCode, HeaderMap, Bytes), CorruptResponse> {
        let mut reader = codec::Reader::new(&self.0)?;
        // Reserves at most the default limit of headers: the count may be hostile, and a map refuses to reserve room
        // for more than 24,576. Two headers are added to every replay: the one that marks it, and the length.
        let mut headers = HeaderMap::with_capacity(reader.headers_left().min(64) + 2);
        while let Some((name, value)) = reader.header()? {
            headers.try_append(name, value).map_err(|_| Flaw::Header)?;
        }
        Ok((reader.status(), headers, reader.body()?))
    }
}

/// Whether the `Content-Length` of a response is not that of its own body (RFC 9110, section 8.6).
fn says_another_length(method: Option<&Method>, status: StatusCode) -> bool {
    method == Some(&Method::HEAD)
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl fmt::Debug for StoredResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = form::status(&self.0).unwrap_or_default();
        f.debug_struct("StoredResponse")
            .field("status", &status)
            .field("bytes", &self.0.len())
            .finish()
    }
}

impl From<Flaw> for CorruptResponse {
    fn from(flaw: Flaw) -> Self {
        Self(flaw)
    }
}

impl fmt::Display for CorruptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the stored response cannot be read: {}", self.0)
    }
}

impl Error for CorruptResponse {}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};
    use proptest::prelude::*;

    use super::*;

    type Lines = Vec<(String, Vec<u8>)>;

    fn head(status: u16, lines: &[(String, Vec<u8>)]) -> Parts {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).unwrap();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            head.headers
                .append(name, HeaderValue::from_bytes(value).unwrap());
        }
        head
    }

    fn lines(lines: &[(&str, &str)]) -> Lines {
        lines
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    fn stored(status: u16, of: &[(&str, &str)], body: &[u8]) -> StoredResponse {
        StoredResponse::encode(
            &head(status, &lines(of)),
            body,
            &ResponseLimits::default(),
            None,
            None,
        )
        .unwrap()
    }

    #[test]
    fn the_form_of_version_1() {
        let stored = stored(201, &[("location", "/p/1"), ("set-cookie", "s=1")], b"{}");
        let form = b"\x01\x00\xc9\x00\x01\x00\x08\x00\x00\x00\x04location/p/1\x00\x00\x00\x00\x00\x00\x00\x02{}";
        assert_eq!(stored.as_bytes()[..], form[..]);
        let read = StoredResponse::from_bytes(Bytes::from_static(form)).unwrap();
        assert_eq!(read, stored);
    }

    #[test]
    fn repeated_headers_keep_their_order_and_number() {
        let stored = stored(
            200,
            &[("link", "b"), ("etag", "x"), ("link", "a"), ("link", "b")],
            b"",
        );
        let (_, headers, _) = stored.decode().unwrap();
        assert_eq!(
            headers.get_all("link").iter().collect::<Vec<_>>(),
            ["b", "a", "b"]
        );
        assert_eq!(headers.len(), 4);
    }

    #[test]
    fn decoded_parts_share_one_allocation_of_the_exact_size() {
        let stored = stored(200, &[("etag", "\"abc\""), ("x-long", "v")], &[7; 5000]);
        let (_, headers, body) = stored.decode().unwrap();
        let whole = stored.as_bytes().as_ptr_range();
        for part in [
            &body[..],
            headers["etag"].as_bytes(),
            headers["x-long"].as_bytes(),
        ] {
            assert!(whole.contains(&part.as_ptr()), "a copy was made");
        }
        drop((headers, body));
        let len = stored.as_bytes().len();
        assert_eq!(stored.0.try_into_mut().unwrap().capacity(), len);
    }

    #[test]
    fn limits_count_only_stored_headers() {
        let limits = ResponseLimits {
            max_body: 3,
            max_headers: 2,
            max_header_bytes: 10,
        };
        let encode = |of: &[(&str, &str)], body: &[u8]| {
            StoredResponse::encode(&head(200, &lines(of)), body, &limits, None, None).map(drop)
        };
        assert_eq!(
            encode(&[("a", "1234"), ("b", "5678"), ("date", "now")], b"123"),
            Ok(())
        );
        assert_eq!(encode(&[], b"1234"), Err(NotStorable::BodyTooLarge));
        assert_eq!(
            encode(&[("a", ""), ("a", ""), ("a", "")], b""),
            Err(NotStorable::TooManyHeaders)
        );
        assert_eq!(
            encode(&[("a", "1234"), ("b", "56789")], b""),
            Err(NotStorable::HeadersTooLarge)
        );
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let stored = stored(200, &[("etag", "x"), ("link", "y")], b"body");
        let bytes = stored.as_bytes();
        for len in 0..bytes.len() {
            assert!(
                StoredResponse::from_bytes(bytes.slice(..len)).is_err(),
                "{len} bytes"
            );
        }
        let longer = Bytes::from([bytes, &b"x"[..]].concat());
        assert_eq!(
            StoredResponse::from_bytes(longer),
            Err(CorruptResponse(Flaw::Trailing))
        );
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let refused = |bytes: Vec<u8>| {
            StoredResponse::from_bytes(Bytes::from(bytes))
                .unwrap_err()
                .to_string()
        };
        let refusal = |what: &str| format!("the stored response cannot be read: {what}");
        assert_eq!(
            refused(vec![4, 0, 200, 0, 0]),
            refusal("unrecognised version 4 (written by a newer version?)")
        );
        assert_eq!(
            refused(vec![1, 0, 99, 0, 0]),
            refusal("its status is not valid")
        );
        assert_eq!(
            refused(vec![1, 0, 200, 0xff, 0xff]),
            refusal("it ends early")
        );
        assert_eq!(
            refused(b"\x01\0\xc8\0\x01\0\x01\0\0\0\0 ".to_vec()),
            refusal("one of its headers is not valid")
        );
        assert_eq!(
            refused(b"\x01\0\xc8\0\x01\0\x01\0\0\0\x01a\n\0\0\0\0\0\0\0\0".to_vec()),
            refusal("one of its headers is not valid"),
        );
        let endless_body = b"\x01\0\xc8\0\0\xff\xff\xff\xff\xff\xff\xff\xffbody";
        assert_eq!(refused(endless_body.to_vec()), refusal("it ends early"));
    }

    #[test]
    fn more_headers_than_a_map_can_reserve_are_an_error() {
        let mut bytes = vec![1, 0, 200, 0xff, 0xff];
        for n in 0..u16::MAX {
            bytes.extend_from_slice(&[0, 4, 0, 0, 0, 0]);
            bytes.extend_from_slice(format!("{n:04x}").as_bytes());
        }
        bytes.extend_from_slice(&[0; 8]);
        let stored = StoredResponse::from_bytes(Bytes::from(bytes)).unwrap();
        assert_eq!(stored.decode(), Err(CorruptResponse(Flaw::Header)));
    }

    #[test]
    fn debug_shows_no_body() {
        let shown = format!("{:?}", stored(201, &[("x", "secret")], b"secret"));
        assert_eq!(shown, "StoredResponse { status: 201, bytes: 32 }");
    }

    fn a_response() -> impl Strategy<Value = (u16, Lines, Vec<u8>)> {
        let value = proptest::collection::vec(prop_oneof![0x20..=0x7e_u8, 0x80..=0xff_u8], 0..20);
        let line = ("(x-)?[a-d]{1,3}", value);
        let body = proptest::collection::vec(any::<u8>(), 0..100);
        (100..=999_u16, proptest::collection::vec(line, 0..10), body)
    }

    proptest! {
        #[test]
        fn a_stored_response_decodes_to_the_original((status, lines, body) in a_response()) {
            let head = head(status, &lines);
            let stored = StoredResponse::encode(&head, &body, &ResponseLimits::default(), None, None).unwrap();
            let read = StoredResponse::from_bytes(stored.as_bytes().clone()).unwrap();
            let (read_status, read_headers, read_body) = read.decode().unwrap();
            prop_assert_eq!(read_status, head.status);
            prop_assert_eq!(read_headers, head.headers);
            prop_assert_eq!(read_body, body);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let plain = bytes.first() == Some(&1);
            if let Ok(stored) = StoredResponse::from_bytes(Bytes::from(bytes)) {
                prop_assert_eq!(stored.decode().is_ok(), plain);
            }
        }

        #[test]
        fn damaged_bytes_never_panic(
            (status, lines, body) in a_response(),
            damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let head = head(status, &lines);
            let stored = StoredResponse::encode(&head, &body, &ResponseLimits::default(), None, None).unwrap();
            let mut bytes = stored.as_bytes().to_vec();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let plain = bytes.first() == Some(&1);
            if let Ok(stored) = StoredResponse::from_bytes(Bytes::from(bytes)) {
                prop_assert_eq!(stored.decode().is_ok(), plain);
            }
        }
    }
}
