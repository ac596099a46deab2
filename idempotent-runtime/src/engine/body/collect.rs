//! Collecting a body, up to a limit.

use std::{
    error::Error,
    fmt, io,
    iter::successors,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{catch_unwind::drop_catching, engine::handler::BoxError};

/// A body that was read to its end.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    /// What came after it. Boxed, because few bodies have any.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

/// A body that is asked whether it is here already, before anything waits for it: most come in one piece, and a request
/// whose body is here needs no future to read it.
pub(crate) struct Begun<B> {
    /// What was read of it, if that was not the whole.
    first: Option<Result<Frame<Bytes>, BoxError>>,
    body: B,
}

impl<B> Begun<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    /// The whole body, or one to be collected. One of more than `limit` bytes is not touched.
    pub(crate) fn read(mut body: B, limit: usize) -> Result<Bytes, Self> {
        let size = body.size_hint().exact();
        let Some(size) = size.filter(|size| *size <= limit as u64) else {
            return Err(Self { first: None, body });
        };
        if size == 0 && body.is_end_stream() {
            drop_catching(body);
            return Ok(Bytes::new());
        }
        // Without a waker: a body that is not here is asked again, by the task that waits for it.
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.len() as u64 == size && body.is_end_stream() => {
                    // It has been read: what its destructor does changes nothing.
                    drop_catching(body);
                    Ok(data)
                }
                Ok(data) => Err(Self::after(Ok(Frame::data(data)), body)),
                Err(frame) => Err(Self::after(Ok(frame), body)),
            },
            Poll::Ready(Some(Err(error))) => Err(Self::after(Err(error.into()), body)),
            // It is empty, although it said that it has `size` bytes: so it is collected as well.
            Poll::Ready(None) => {
                drop_catching(body);
                Ok(Bytes::new())
            }
            Poll::Pending => Err(Self { first: None, body }),
        }
    }

    fn after(first: Result<Frame<Bytes>, BoxError>, body: B) -> Self {
        Self {
            first: Some(first),
            body,
        }
    }
}

impl<B> Body for Begun<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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

    /// A body that says how long it is.
    struct Announced(Frames, u64);

    impl Body for Announced {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sent>> {
            Pin::new(&mut self.0).poll_frame(context)
        }

        fn is_end_stream(&self) -> bool {
            self.0.0.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }

    fn begin<const N: usize>(
        frames: [Sent; N],
        size: u64,
        limit: usize,
    ) -> Result<Bytes, Box<Begun<Announced>>> {
        Begun::read(Announced(Frames(frames.into()), size), limit).map_err(Box::new)
    }

    #[tokio::test]
    async fn what_is_here_in_one_piece_is_read_at_once() {
        assert_eq!(begin([data("abc")], 3, 3).ok().unwrap(), "abc");
        assert_eq!(begin([], 0, 0).ok().unwrap(), "");
    }

    #[tokio::test]
    async fn what_was_read_of_a_body_in_pieces_is_not_lost() {
        let pieces = begin([data("ab"), data("c")], 3, 3).err().unwrap();
        assert_eq!(collect(*pieces, 3).await.unwrap().bytes, "abc");
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        let with_trailers = begin([data("abc"), trailers], 3, 3).err().unwrap();
        let collected = collect(*with_trailers, 3).await.unwrap();
        assert_eq!(collected.bytes, "abc");
        assert!(collected.trailers.is_some());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_at_once_is_not_taken_for_an_empty_one() {
        let broken = begin([Err("reset")], 3, 3).err().unwrap();
        let broken = collect(*broken, 3).await.unwrap_err();
        assert!(matches!(broken, CollectError::Broken(error) if error.to_string() == "reset"));
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_not_read_at_once() {
        let long = begin([data("abc")], 3, 2).err().unwrap();
        assert!(long.first.is_none());
        assert_eq!(long.body.0.0.len(), 1, "it was not touched");
        let long = collect(*long, 2).await.unwrap_err();
        assert!(matches!(long, CollectError::TooLarge), "{long:?}");
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
