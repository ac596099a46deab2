//! Collecting a body, up to a limit.

use std::{error::Error, fmt, io, iter::successors};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::engine::handler::BoxError;

/// A body that was read to its end.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    /// What came after it. Boxed, because few bodies have any.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

/// Why a body could not be collected.
#[derive(Debug)]
pub(crate) enum CollectError {
    /// It is larger than the limit; the rest of it was not read.
    TooLarge,
    /// It is larger than the limit of a layer around us, which we do not know.
    TooLargeForAnother,
    /// It ended with this error.
    Broken(BoxError),
}

/// Reads a body of at most `limit` bytes. One that comes in one piece, as most do, is not copied.
pub(crate) async fn collect<B>(body: B, limit: usize) -> Result<Collected, CollectError>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    // What the body itself reports is wrapped, so that its limit is not taken for ours.
    let body = body.map_err(|error| Own(error.into()));
    let collected = Limited::new(body, limit).collect().await;
    let collected = collected.map_err(|error| match error.downcast::<Own>() {
        Err(_ours) => CollectError::TooLarge,
        Ok(own) if is_limit(&*own.0) => CollectError::TooLargeForAnother,
        Ok(own) => CollectError::Broken(own.0),
    })?;
    let trailers = collected.trailers().cloned().map(Box::new);
    Ok(Collected {
        bytes: collected.to_bytes(),
        trailers,
    })
}

/// An error of the body itself.
#[derive(Debug)]
struct Own(BoxError);

impl fmt::Display for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Own {}

/// Whether a limit was hit.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    successors(Some(error), |error| within(*error)).any(<dyn Error>::is::<LengthLimitError>)
}

/// What an error is about. `io::Error` passes over what it wraps: its source is the source of that.
fn within<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        pin::Pin,
        task::{Context, Poll},
    };

    use http_body::Frame;

    use super::*;

    type Sent = Result<Frame<Bytes>, &'static str>;

    struct Frames(VecDeque<Sent>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Sent>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "a frame as the body sends it")]
    fn data(bytes: &'static str) -> Sent {
        Ok(Frame::data(Bytes::from_static(bytes.as_bytes())))
    }

    async fn read<const N: usize>(
        frames: [Sent; N],
        limit: usize,
    ) -> Result<Collected, CollectError> {
        collect(Frames(frames.into()), limit).await
    }

    #[tokio::test]
    async fn pieces_are_joined() {
        let empty = read([], 0).await.unwrap();
        assert!(empty.bytes.is_empty());
        let joined = read([data("a"), data(""), data("bc"), data("d")], 4).await;
        assert_eq!(joined.unwrap().bytes, "abcd");
    }

    #[tokio::test]
    async fn one_piece_is_shared() {
        let piece = Bytes::from(vec![7; 100]);
        let at = piece.as_ptr();
        let read = read([Ok(Frame::data(piece))], 100).await.unwrap();
        assert_eq!(read.bytes.as_ptr(), at);
    }

    #[tokio::test]
    async fn the_limit_counts_all_pieces() {
        assert!(read([data("ab"), data("cd")], 4).await.is_ok());
        let broken = read([data("ab"), data("cde")], 4).await.unwrap_err();
        assert!(matches!(broken, CollectError::TooLarge), "{broken:?}");
    }

    #[tokio::test]
    async fn the_limit_of_another_is_not_taken_for_ours() {
        let limited = Limited::new(Frames([data("abc")].into()), 2);
        let broken = collect(limited, 2).await.unwrap_err();
        assert!(
            matches!(broken, CollectError::TooLargeForAnother),
            "{broken:?}"
        );
    }

    #[tokio::test]
    async fn the_limit_of_another_is_found_in_whatever_wraps_it() {
        let limit = || async {
            let limited = Limited::new(Frames([data("abc")].into()), 2);
            limited.collect().await.unwrap_err()
        };
        let twice = |error| io::Error::other(io::Error::other(error));
        for error in [
            Box::new(io::Error::other(limit().await)) as BoxError,
            Box::new(twice(limit().await)),
            Box::new(axum_core::Error::new(io::Error::other(limit().await))),
            Box::new(io::Error::other(axum_core::Error::new(limit().await))),
        ] {
            assert!(is_limit(&*error), "{error:?}");
        }
        for error in [
            Box::new(io::Error::from(io::ErrorKind::UnexpectedEof)) as BoxError,
            Box::new(twice("length limit exceeded".into())),
        ] {
            assert!(!is_limit(&*error), "{error:?}");
        }
    }

    #[tokio::test]
    async fn trailers_and_errors_are_returned() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        let read_with = read([data("a"), trailers], 1).await.unwrap();
        assert!(read_with.trailers.is_some());
        assert_eq!(read_with.bytes, "a");
        let broken = read([data("a"), Err("reset")], 1).await.unwrap_err();
        assert!(matches!(broken, CollectError::Broken(error) if error.to_string() == "reset"));
    }
}
