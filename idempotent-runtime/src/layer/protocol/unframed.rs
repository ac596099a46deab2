//! The stored form of a gRPC response back into one with trailers.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{
    HeaderMap, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::Frame;

use super::{
    framing::{PREFIX, TRAILERS, Withheld, trailers_in},
    grpc,
};
use crate::{
    body::{Body, from_engine},
    engine::{Reply, ResponseBody},
};

/// The response as its handler gave it. What is no gRPC response stays as it is.
pub(super) fn unframed(mut reply: Reply<Body>) -> Response<Body> {
    let Some(content_type) = grpc::as_native(reply.headers()) else {
        return from_engine(reply);
    };
    *reply.status_mut() = StatusCode::OK;
    let Withheld(withheld) = reply.extensions_mut().remove().unwrap_or_default();
    let headers = reply.headers_mut();
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, content_type);
    // Trailers only, as they came: after a head of its own, no client would repeat the call by its retry policy.
    if let ResponseBody::Full(frame) = reply.body()
        && frame.first().is_some_and(|first| first & TRAILERS != 0)
    {
        let trailers = trailers_in(frame);
        reply.headers_mut().extend(trailers);
        return reply.map(|_| Body::empty());
    }
    let (head, body) = from_engine(reply).into_parts();
    let body = Unframed {
        body,
        at: At::Prefix(Prefix::default()),
        withheld,
    };
    Response::from_parts(head, Body::new(body))
}

/// A body whose last frame is its trailers. Messages are passed on as they come, uncopied.
struct Unframed {
    body: Body,
    at: At,
    /// What is no part of the stored trailers.
    withheld: HeaderMap,
}

/// Where in the body the next byte is.
enum At {
    /// In front of a message, or of the trailers.
    Prefix(Prefix),
    /// In a message, of which this much is left.
    Message(usize),
    /// In the trailers, of which this has come.
    Trailers(BytesMut),
    End,
}

/// What has come of a prefix.
#[derive(Default)]
struct Prefix {
    bytes: [u8; PREFIX],
    length: usize,
}

impl Unframed {
    /// The messages in this chunk; what begins the trailers is kept.
    fn pass(&mut self, chunk: &mut Bytes) -> Bytes {
        let whole = chunk.clone();
        loop {
            match &mut self.at {
                At::Message(0) => self.at = At::Prefix(Prefix::default()),
                _ if chunk.is_empty() => return whole,
                At::Message(left) => {
                    let taken = chunk.len().min(*left);
                    chunk.advance(taken);
                    *left -= taken;
                }
                At::Prefix(prefix) => {
                    if prefix.length == 0 && chunk[0] & TRAILERS != 0 {
                        let messages = whole.slice(..whole.len() - chunk.len());
                        self.at = At::Trailers(BytesMut::from(&chunk[..]));
                        return messages;
                    }
                    prefix.bytes[prefix.length] = chunk.get_u8();
                    prefix.length += 1;
                    if let [_, length @ ..] = prefix.bytes
                        && prefix.length == PREFIX
                    {
                        let length = usize::try_from(u32::from_be_bytes(length));
                        self.at = At::Message(length.unwrap_or(usize::MAX));
                    }
                }
                At::Trailers(trailers) => {
                    trailers.extend_from_slice(chunk);
                    return Bytes::new();
                }
                At::End => return Bytes::new(),
            }
        }
    }
}

impl http_body::Body for Unframed {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if matches!(self.at, At::End) {
                return Poll::Ready(None);
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                return Poll::Ready(match mem::replace(&mut self.at, At::End) {
                    At::Trailers(frame) => {
                        let mut trailers = trailers_in(&frame);
                        trailers.extend(mem::take(&mut self.withheld));
                        Some(Ok(Frame::trailers(trailers)))
                    }
                    _ => None,
                });
            };
            let mut chunk = match frame.map(Frame::into_data) {
                Ok(Ok(chunk)) => chunk,
                Ok(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            let messages = self.pass(&mut chunk);
            if !messages.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(messages))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.at, At::End)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;

    /// Two messages, the first of them empty, and trailers.
    const STORED: &[u8] = b"\0\0\0\0\0\x01\0\0\0\x02\x80\x81\x80\0\0\0\x10grpc-status: 0\r\n";

    fn read(chunks: Vec<Bytes>) -> (Vec<u8>, Option<http::HeaderMap>) {
        let chunks = chunks.into_iter().map(Ok::<_, std::io::Error>);
        let body = Unframed {
            body: Body::from_stream(stream::iter(chunks)),
            at: At::Prefix(Prefix::default()),
            withheld: HeaderMap::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let collected = runtime.block_on(body.collect()).unwrap();
        let trailers = collected.trailers().cloned();
        (collected.to_bytes().to_vec(), trailers)
    }

    #[test]
    fn wherever_the_body_is_cut_the_messages_and_the_trailers_are_the_same() {
        let messages = &STORED[..12];
        for cut in 0..=STORED.len() {
            for second in cut..=STORED.len() {
                let chunks = [&STORED[..cut], &STORED[cut..second], &STORED[second..]];
                let (data, trailers) = read(chunks.map(Bytes::from_static).to_vec());
                assert_eq!(data, messages, "{cut} {second}");
                assert_eq!(trailers.unwrap()["grpc-status"], "0", "{cut} {second}");
            }
        }
    }

    #[test]
    fn a_body_without_trailers_has_none() {
        let (data, trailers) = read(vec![Bytes::from_static(&STORED[..12])]);
        assert_eq!(data, &STORED[..12]);
        assert_eq!(trailers, None);
        assert_eq!(read(vec![]), (vec![], None));
    }
}
