//! What a response says about its length, in its head and by its body.
//!
//! A server ends a response with a `Content-Length` after so many bytes, whatever the body is, and a replay gets the length
//! of what was stored. So a head that contradicts its body would show the first client something else than the next one.
//! RFC 9110 (section 8.6) forbids to send such a message:
//!
//! 1. A body that knows its exact size is right, and the header is taken off.
//! 2. Of a body that does not, the header is all that is known: if the body ends before that length, it is incomplete (RFC
//!    9112, section 8), and if it goes on, nobody knows which part of it was meant. It is not an outcome that can be shown.
//!
//! The length in the head of a response that has no body of its own says something else (RFC 9110, section 8.6).

use http::{Method, StatusCode, header::CONTENT_LENGTH, response::Parts};
use http_body::Body;

use crate::catch_unwind::{Panicked, catch_unwind};

/// The length of a response before its body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// The end of the body ends the response.
    Nothing,
    /// Its body says that it has this size.
    Exact(u64),
    /// Its head says so, and its body does not know its size.
    Claimed(u64),
    /// Its head says something that is not a length.
    Nonsense,
}

impl Announced {
    /// What this response announces. A header that contradicts a body of exact size is removed.
    pub(super) fn of<B: Body>(
        head: &mut Parts,
        body: &B,
        method: &Method,
    ) -> Result<Self, Panicked> {
        let exact = catch_unwind(|| body.size_hint().exact())?;
        // The length that a body would have that is not sent.
        let of_another = method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED;
        Ok(match (exact, claimed(head)) {
            (Some(size), Self::Claimed(claimed)) if claimed == size => Self::Exact(size),
            (Some(size), Self::Nothing) => Self::Exact(size),
            (Some(size), found) => {
                if !of_another {
                    tracing::warn!(
                        ?found,
                        size,
                        "the Content-Length of a response is not the size of its body: it is not sent"
                    );
                    head.headers.remove(CONTENT_LENGTH);
                }
                Self::Exact(size)
            }
            (None, _) if of_another => Self::Nothing,
            (None, claimed) => claimed,
        })
    }

    /// Whether a body of so many bytes is what was announced.
    pub(super) fn is_kept_by(self, bytes: usize) -> bool {
        match self {
            Self::Claimed(size) => size == bytes as u64,
            // A body that breaks its own word is stored, and shown, as it was read: a replay shows the same bytes.
            Self::Nothing | Self::Exact(_) => true,
            Self::Nonsense => false,
        }
    }
}

/// What the head says. Equal lines are one (RFC 9112, section 6.3).
fn claimed(head: &Parts) -> Announced {
    let mut lines = head.headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else {
        return Announced::Nothing;
    };
    if lines.any(|line| line != first) {
        return Announced::Nonsense;
    }
    let digits = first
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .map_or(Announced::Nonsense, Announced::Claimed)
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http::Response;
    use http_body::Frame;
    use http_body_util::Full;

    use super::*;

    fn head(lines: &[&str]) -> Parts {
        let mut response = Response::new(());
        for line in lines {
            let line = line.parse().unwrap();
            response.headers_mut().append(CONTENT_LENGTH, line);
        }
        response.into_parts().0
    }

    /// A body that does not know its size.
    struct Unknown;

    impl Body for Unknown {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(None)
        }
    }

    #[test]
    fn a_body_of_unknown_size_has_the_length_of_its_head() {
        for (lines, expected) in [
            (&[][..], Announced::Nothing),
            (&["6"], Announced::Claimed(6)),
            (&["6", "6"], Announced::Claimed(6)),
            (&["6", "7"], Announced::Nonsense),
            (&["+6"], Announced::Nonsense),
            (&["6, 6"], Announced::Nonsense),
            (&[""], Announced::Nonsense),
            (&["99999999999999999999"], Announced::Nonsense),
        ] {
            let mut head = head(lines);
            let announced = Announced::of(&mut head, &Unknown, &Method::POST).ok();
            assert_eq!(announced, Some(expected), "{lines:?}");
            assert_eq!(head.headers.len(), lines.len(), "nothing is removed");
        }
    }

    #[test]
    fn a_header_that_contradicts_a_body_of_exact_size_is_removed_unless_it_means_another_body() {
        let body = Full::new(Bytes::from_static(b"answer"));
        for (line, kept) in [("6", true), ("5", false), ("x", false)] {
            let mut head = head(&[line]);
            let announced = Announced::of(&mut head, &body, &Method::POST).ok();
            assert_eq!(announced, Some(Announced::Exact(6)), "{line}");
            assert_eq!(head.headers.contains_key(CONTENT_LENGTH), kept, "{line}");
        }
        let none = Full::new(Bytes::new());
        let mut asked = head(&["6"]);
        assert!(Announced::of(&mut asked, &none, &Method::HEAD).is_ok());
        assert!(asked.headers.contains_key(CONTENT_LENGTH));
        let mut unchanged = head(&["6"]);
        unchanged.status = StatusCode::NOT_MODIFIED;
        assert!(Announced::of(&mut unchanged, &none, &Method::GET).is_ok());
        assert!(unchanged.headers.contains_key(CONTENT_LENGTH));
    }
}
