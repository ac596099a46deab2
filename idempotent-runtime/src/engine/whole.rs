//! Reading a body to its end.

use std::{future::poll_fn, pin::pin};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;

use super::boundary::BoxError;

/// A body that arrived whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// What came after it, if anything did. Boxed, because it rarely does.
    pub(crate) trailers: Option<Box<HeaderMap>>,
}

/// Why a body did not arrive whole.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It is larger than the limit; the rest of it was not read.
    TooLarge,
    /// It ended with this error.
    Error(BoxError),
}

/// Reads a body of at most `limit` bytes. One that comes in one piece, as most do, is not copied.
pub(crate) async fn whole<B>(body: B, limit: usize) -> Result<Whole, Broken>
where
    B: Body<Data = Bytes, Error: Into<BoxError>>,
{
    let mut body = pin!(body);
    let (mut pieces, mut trailers) = (Pieces::None, None);
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| Broken::Error(error.into()))?;
        match frame.into_data() {
            Ok(data) if data.len() > limit - pieces.len() => return Err(Broken::TooLarge),
            Ok(data) => pieces = pieces.and(data),
            Err(other) => trailers = other.into_trailers().ok().map(Box::new),
        }
    }
    Ok(Whole {
        bytes: pieces.joined(),
        trailers,
    })
}

/// What has been read: shared while it is one piece, copied together from the second on.
enum Pieces {
    None,
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(bytes) => bytes.len(),
            Self::Many(bytes) => bytes.len(),
        }
    }

    fn and(self, data: Bytes) -> Self {
        let mut joined = match self {
            Self::None => return Self::One(data),
            Self::One(first) => BytesMut::from(&*first),
            Self::Many(joined) => joined,
        };
        joined.extend_from_slice(&data);
        Self::Many(joined)
    }

    fn joined(self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
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

    async fn read<const N: usize>(frames: [Sent; N], limit: usize) -> Result<Whole, Broken> {
        whole(Frames(frames.into()), limit).await
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
        assert!(matches!(broken, Broken::TooLarge), "{broken:?}");
    }

    #[tokio::test]
    async fn trailers_and_errors_are_told() {
        let trailers = Ok(Frame::trailers(HeaderMap::new()));
        let read_with = read([data("a"), trailers], 1).await.unwrap();
        assert!(read_with.trailers.is_some());
        assert_eq!(read_with.bytes, "a");
        let broken = read([data("a"), Err("reset")], 1).await.unwrap_err();
        assert!(matches!(broken, Broken::Error(error) if error.to_string() == "reset"));
    }
}
