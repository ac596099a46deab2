//! Which headers a message may have, asked in a few instructions.
//!
//! The engine asks a request for a dozen headers of which most have one or two, and each look-up in a map hashes a name and
//! probes. A sketch has one bit for each of 64 classes of names: a header whose bit is not set is not there.

use http::{HeaderMap, HeaderName, HeaderValue, header::GetAll};

/// The classes of the names that a map holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeaderSketch(u64);

/// Headers beside their sketch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SketchedHeaders<'a> {
    pub(crate) map: &'a HeaderMap,
    sketch: HeaderSketch,
}

impl HeaderSketch {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |bits, name| bits | bit(name)))
    }

    /// Beside the headers that it was made of.
    pub(crate) fn beside(self, map: &HeaderMap) -> SketchedHeaders<'_> {
        SketchedHeaders { map, sketch: self }
    }
}

impl<'a> SketchedHeaders<'a> {
    pub(crate) fn of(map: &'a HeaderMap) -> Self {
        HeaderSketch::of(map).beside(map)
    }

    /// `false` if there is no such header.
    pub(crate) fn may_have(self, name: &HeaderName) -> bool {
        self.sketch.0 & bit(name) != 0
    }

    pub(crate) fn contains(self, name: &HeaderName) -> bool {
        self.may_have(name) && self.map.contains_key(name)
    }

    /// All lines of this header; `None` only if there are none.
    pub(crate) fn all(self, name: &HeaderName) -> Option<GetAll<'a, HeaderValue>> {
        self.may_have(name).then(|| self.map.get_all(name))
    }

    /// The same, one by one.
    pub(crate) fn lines(self, name: &HeaderName) -> impl Iterator<Item = &'a HeaderValue> {
        self.all(name).into_iter().flatten()
    }
}

/// The class of a name, by its length and the byte in its middle: enough to tell what is asked for from what most requests
/// have.
fn bit(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let middle = name.get(name.len() / 2).copied().map_or(0, usize::from);
    1 << ((name.len() + 4 * middle) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_there_is_found() {
        let mut headers = HeaderMap::new();
        for number in 0..200 {
            let name: HeaderName = format!("x-{number}").parse().unwrap();
            headers.append(&name, HeaderValue::from_static("1"));
            headers.append(&name, HeaderValue::from_static("2"));
            let sketched = SketchedHeaders::of(&headers);
            assert!(sketched.contains(&name));
            assert_eq!(sketched.lines(&name).count(), 2);
        }
    }

    /// A collision would be no mistake, and cost a look-up with nearly every request.
    #[test]
    fn what_is_asked_for_is_not_taken_for_what_most_requests_have() {
        let usual = "accept accept-encoding accept-language cache-control connection content-length content-type host \
            idempotency-key origin referer user-agent";
        let asked = "api-key authorization content-encoding content-range cookie if-match if-modified-since \
            if-none-match if-unmodified-since traceparent x-api-key x-auth-token";
        let name = |name: &str| -> HeaderName { name.parse().unwrap() };
        let headers: HeaderMap = usual
            .split_whitespace()
            .map(|usual| (name(usual), HeaderValue::from_static("1")))
            .collect();
        let sketched = SketchedHeaders::of(&headers);
        let taken: Vec<_> = asked
            .split_whitespace()
            .filter(|asked| sketched.may_have(&name(asked)))
            .collect();
        assert_eq!(taken, [""; 0]);
    }
}
