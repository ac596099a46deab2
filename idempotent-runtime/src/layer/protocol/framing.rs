//! A handler's response in the form that is stored: its trailers are the last frame of its body, as gRPC-Web has them
//! ("Protocol differences vs gRPC over HTTP2"), so that a record needs nothing but a head and a body.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::BodyExt as _;

use super::{grpc, status};
use crate::{body::Body, response::is_never_stored};

/// The first byte of the frame that has the trailers.
pub(super) const TRAILERS: u8 = 0x80;
/// The flags and the length in front of each frame.
pub(super) const PREFIX: usize = 5;

/// The response with its trailers in its body, and with the status of HTTP that stands for its own. What is no gRPC response
/// stays as it is.
pub(super) async fn framed(response: Response<Body>, limit: usize) -> Response<Body> {
    let Some(content_type) = grpc::as_web(response.headers()) else {
        return response;
    };
    let (mut head, body) = response.into_parts();
    let body = if head.headers.contains_key(status::STATUS) {
        // Trailers only. The metadata stays in the head, where the engine knows what to store of it.
        let trailers = status::taken_from(&mut head.headers);
        head.status = status::of_http(&trailers);
        Body::from(frame_of(&trailers))
    } else {
        let (body, trailers) = collected(body, limit).await;
        if let Some((trailers, withheld)) = trailers {
            head.status = status::of_http(&trailers);
            head.extensions.insert(withheld);
        }
        body
    };
    head.headers.insert(CONTENT_TYPE, content_type);
    Response::from_parts(head, body)
}

/// Trailers of the first response that are in no replay of it: as headers they would never be stored.
#[derive(Clone, Default)]
pub(super) struct Withheld(pub(super) HeaderMap);

impl Withheld {
    /// Takes them from the others.
    fn from(trailers: &mut HeaderMap) -> Self {
        let is_stored = |name: &HeaderName| !is_never_stored(name.as_str().as_bytes());
        if trailers.keys().all(is_stored) {
            return Self::default();
        }
        let all = std::mem::take(trailers);
        let mut withheld = HeaderMap::new();
        for (name, value) in &all {
            let map = if is_stored(name) {
                &mut *trailers
            } else {
                &mut withheld
            };
            map.append(name.clone(), value.clone());
        }
        Self(withheld)
    }
}

/// The whole body with its trailers, and these once more; or, of a body that is too long or breaks off, no trailers, and a
/// body that goes on.
async fn collected(mut body: Body, limit: usize) -> (Body, Option<(HeaderMap, Withheld)>) {
    let mut chunks = VecDeque::new();
    let mut length = 0;
    while length <= limit {
        match body.frame().await {
            None => return (joined(&chunks, length, None), Some(Default::default())),
            Some(Err(error)) => {
                let rest = Framing {
                    chunks,
                    rest: Body::new(Failing(Some(error))),
                };
                return (Body::new(rest), None);
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    length += data.len();
                    chunks.push_back(data);
                }
                Err(frame) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    let withheld = Withheld::from(&mut trailers);
                    let last = frame_of(&trailers);
                    let whole = joined(&chunks, length, Some(last));
                    return (whole, Some((trailers, withheld)));
                }
            },
        }
    }
    let rest = Framing { chunks, rest: body };
    (Body::new(rest), None)
}

/// One piece, which the engine stores without copying it again.
fn joined(chunks: &VecDeque<Bytes>, length: usize, trailers: Option<Bytes>) -> Body {
    let last = trailers.unwrap_or_default();
    let mut whole = BytesMut::with_capacity(length + last.len());
    for chunk in chunks.iter().chain([&last]) {
        whole.put_slice(chunk);
    }
    Body::from(whole.freeze())
}

/// The frame that has these trailers.
fn frame_of(trailers: &HeaderMap) -> Bytes {
    let mut frame = BytesMut::with_capacity(128);
    frame.put_slice(&[TRAILERS, 0, 0, 0, 0]);
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_slice(b": ");
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    // Trailers of four gigabytes are no trailers.
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or_default();
    frame[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// The trailers in this frame, whose end may be missing.
pub(super) fn trailers_in(frame: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let lines = frame.get(PREFIX..).unwrap_or_default();
    for line in lines.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name.try_into(), HeaderValue::from_bytes(value)) {
            trailers.append::<HeaderName>(name, value);
        }
    }
    trailers
}

/// A body of which some has come already, and whose trailers become its last frame.
struct Framing {
    chunks: VecDeque<Bytes>,
    rest: Body,
}

impl http_body::Body for Framing {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        let frame = ready!(Pin::new(&mut self.rest).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_trailers() {
                Ok(trailers) => Frame::data(frame_of(&trailers)),
                Err(frame) => frame,
            })
        }))
    }
}

/// A body that broke off.
struct Failing(Option<axum_core::Error>);

impl http_body::Body for Failing {
    type Data = Bytes;
    type Error = axum_core::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::unframed::unframed, *};
    use crate::engine::ResponseBody;

    #[test]
    fn trailers_come_back_as_they_were() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.append("x-seen", HeaderValue::from_static("a: b"));
        trailers.append("x-seen", HeaderValue::from_static(""));
        trailers.insert("x-raw", HeaderValue::from_bytes(b"\xe9").unwrap());
        let frame = frame_of(&trailers);
        assert_eq!(frame[0], TRAILERS);
        assert_eq!(
            frame[1..5],
            u32::try_from(frame.len() - 5).unwrap().to_be_bytes()
        );
        assert_eq!(trailers_in(&frame), trailers);
        assert_eq!(trailers_in(&frame_of(&HeaderMap::new())), HeaderMap::new());
    }

    /// As headers of those names: a session of the first client is nobody else's.
    #[test]
    fn trailers_that_are_never_stored_are_kept_apart() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.append("set-cookie", HeaderValue::from_static("a"));
            trailers.append("set-cookie", HeaderValue::from_static("b"));
            let (all, message) = (trailers.clone(), Bytes::from_static(&[0, 0, 0, 0, 0]));
            let body = http_body_util::Full::new(message.clone());
            let body = body.with_trailers(async move { Some(Ok(trailers)) });
            let response = Response::builder().header(CONTENT_TYPE, "application/grpc");
            let framed = framed(response.body(Body::new(body)).unwrap(), 100).await;
            assert_eq!(framed.headers()[CONTENT_TYPE], "application/grpc-web");

            // What is stored is the body; what the first client gets, has the response's extensions too.
            let (head, body) = framed.into_parts();
            let stored = body.collect().await.unwrap().to_bytes();
            assert_eq!(&stored[..5], &message[..]);
            let replayed = trailers_in(&stored[5..]);
            assert_eq!(replayed.len(), 1, "{replayed:?}");
            let reply = Response::from_parts(head, ResponseBody::full(stored));
            let collected = unframed(reply).into_body().collect().await.unwrap();
            assert_eq!(collected.trailers(), Some(&all));
            assert_eq!(collected.to_bytes(), message);
        });
    }

    #[test]
    fn a_frame_that_is_no_frame_has_no_trailers() {
        for frame in [
            &b""[..],
            b"\x80",
            b"\x80\0\0\0\x03abc",
            b"\x80\0\0\0\x05a\0: b",
        ] {
            assert_eq!(trailers_in(frame), HeaderMap::new(), "{frame:?}");
        }
    }
}
