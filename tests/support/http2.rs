//! An HTTP/2 client that can reset its streams.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use h2::{
    Ping, PingPong, Reason, SendStream,
    client::{ResponseFuture, SendRequest, handshake},
};
use http::Request;
use tokio::{net::TcpStream, task::JoinHandle};

use super::{Seen, TestRequest, TestResponse};

/// A connection.
pub(crate) struct H2Conn {
    send: SendRequest<Bytes>,
    pings: PingPong,
    driver: JoinHandle<()>,
}

/// A request under way.
pub(crate) struct H2Stream {
    response: ResponseFuture,
    request: SendStream<Bytes>,
}

impl H2Conn {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.unwrap()
    }

    /// A connection to a server that may have gone.
    pub(crate) async fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (send, mut connection) = handshake(stream).await.map_err(io::Error::other)?;
        let pings = connection.ping_pong().expect("taken once");
        let driver = tokio::spawn(async move {
            let _ended = connection.await;
        });
        Ok(Self {
            send,
            pings,
            driver,
        })
    }

    /// Sends a complete request.
    pub(crate) async fn send(&mut self, request: &TestRequest) -> H2Stream {
        self.try_send(request).await.unwrap()
    }

    /// Sends a complete request to a server that may have gone.
    pub(crate) async fn try_send(&mut self, request: &TestRequest) -> io::Result<H2Stream> {
        let mut stream = self.try_begin(request).await?;
        // A server that needs no body may have answered and closed the stream by now. One that has gone shows it where the
        // answer is read.
        let _closed = stream.request.send_data(request.body.clone(), true);
        Ok(stream)
    }

    /// Sends the head of a request only.
    pub(crate) async fn begin(&mut self, request: &TestRequest) -> H2Stream {
        self.try_begin(request).await.unwrap()
    }

    /// Sends the head of a request only, to a server that may have gone.
    pub(crate) async fn try_begin(&mut self, request: &TestRequest) -> io::Result<H2Stream> {
        let mut head = Request::new(());
        *head.method_mut() = request.method.clone();
        *head.uri_mut() = format!("http://localhost{}", request.path).parse().unwrap();
        *head.headers_mut() = request.headers.clone();
        self.send = self.send.clone().ready().await.map_err(io::Error::other)?;
        let sent = self.send.send_request(head, false);
        let (response, request) = sent.map_err(io::Error::other)?;
        Ok(H2Stream { response, request })
    }

    /// Waits until the server has read everything that was sent before.
    pub(crate) async fn flush(&mut self) {
        // A ping may overtake frames that are still queued here. They are written by the time of its reply, so the
        // second ping follows them.
        for _ in 0..2 {
            self.pings.ping(Ping::opaque()).await.unwrap();
        }
    }

    /// Closes the TCP connection without GOAWAY.
    pub(crate) fn close(self) {
        self.driver.abort();
    }
}

impl H2Stream {
    /// Sends a piece of the body, which does not end with it.
    pub(crate) fn piece(&mut self, piece: &'static [u8]) {
        self.request
            .send_data(Bytes::from_static(piece), false)
            .unwrap();
    }

    /// Resets the stream; others on the connection go on.
    pub(crate) fn reset(mut self) {
        self.request.send_reset(Reason::CANCEL);
    }

    pub(crate) async fn answer(self) -> TestResponse {
        self.try_answer().await.unwrap()
    }

    pub(crate) async fn try_answer(self) -> io::Result<TestResponse> {
        self.watch(&Seen::default()).await
    }

    /// The same, and notes what has arrived.
    pub(super) async fn watch(self, seen: &Seen) -> io::Result<TestResponse> {
        let (head, mut pieces) = self.response.await.map_err(io::Error::other)?.into_parts();
        seen.head();
        let mut body = BytesMut::new();
        while let Some(piece) = pieces.data().await {
            let piece = piece.map_err(io::Error::other)?;
            let _ = pieces.flow_control().release_capacity(piece.len());
            seen.piece(&piece);
            body.extend_from_slice(&piece);
        }
        Ok(TestResponse {
            status: head.status,
            headers: head.headers,
            body: body.freeze(),
        })
    }
}
