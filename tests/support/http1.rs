//! A server on a port of its own, and an HTTP/1 client that can disconnect in every way.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Seen, TestRequest, TestResponse};

/// A running server; ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, serving }
    }

    /// Sends one request over a connection of its own.
    pub(crate) async fn send(&self, request: &TestRequest) -> TestResponse {
        let mut conn = Conn::open(self.address).await;
        conn.send(&request.wire()).await;
        conn.answer().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A connection.
pub(crate) struct Conn {
    stream: TcpStream,
    read: BytesMut,
}

impl Conn {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address).await.unwrap()
    }

    /// A connection to a server that may have gone.
    pub(crate) async fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: BytesMut::new(),
        })
    }

    /// Sends bytes. A closed connection shows when the response is read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _hung_up = self.stream.write_all(bytes).await;
    }

    /// Closes the connection normally.
    pub(crate) fn close(self) {
        drop(self);
    }

    /// Closes the writing half and keeps the reading half open.
    pub(crate) async fn half_close(&mut self) {
        let _hung_up = self.stream.shutdown().await;
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(self.stream);
    }

    /// Reads one response.
    pub(crate) async fn answer(&mut self) -> TestResponse {
        self.try_answer().await.expect("a response arrives")
    }

    /// Reads one response, or how the connection ended.
    pub(crate) async fn try_answer(&mut self) -> io::Result<TestResponse> {
        self.watch(&Seen::default()).await
    }

    /// The same, and notes what has arrived.
    pub(super) async fn watch(&mut self, seen: &Seen) -> io::Result<TestResponse> {
        loop {
            let (status, headers) = self.try_head().await?;
            if status.is_informational() {
                continue;
            }
            seen.head();
            let body = self.body(&headers, seen).await?;
            return Ok(TestResponse {
                status,
                headers,
                body,
            });
        }
    }

    /// Reads the status and the headers.
    pub(crate) async fn try_head(&mut self) -> io::Result<(StatusCode, HeaderMap)> {
        let head = self.through(b"\r\n\r\n").await?;
        let head = String::from_utf8(head.to_vec()).map_err(io::Error::other)?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other("no status line"))?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').expect("a header line has a colon");
            headers.append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_str(value.trim()).unwrap(),
            );
        }
        Ok((status, headers))
    }

    /// Reads one chunk of a chunked body; empty at its end.
    pub(crate) async fn try_chunk(&mut self) -> io::Result<Bytes> {
        let size = self.through(b"\r\n").await?;
        let size = std::str::from_utf8(&size).unwrap().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let mut chunk = self.exactly(size + 2).await?;
        chunk.truncate(size);
        Ok(chunk)
    }

    /// Waits until the other side closes or resets the connection.
    pub(crate) async fn closed(&mut self) {
        while matches!(self.more().await, Ok(())) {}
    }

    /// Reads until the other side closes the connection.
    pub(crate) async fn rest(&mut self) -> Bytes {
        while matches!(self.more().await, Ok(())) {}
        self.read.split().freeze()
    }

    async fn body(&mut self, headers: &HeaderMap, seen: &Seen) -> io::Result<Bytes> {
        if let Some(length) = headers.get("content-length") {
            let length = length.to_str().unwrap().parse().unwrap();
            return self.exactly(length).await;
        }
        if headers.get("transfer-encoding").is_none() {
            return Ok(Bytes::new());
        }
        let mut body = BytesMut::new();
        loop {
            let chunk = self.try_chunk().await?;
            if chunk.is_empty() {
                return Ok(body.freeze());
            }
            seen.piece(&chunk);
            body.extend_from_slice(&chunk);
        }
    }

    async fn through(&mut self, end: &[u8]) -> io::Result<Bytes> {
        loop {
            let found = self.read.windows(end.len()).position(|at| at == end);
            if let Some(at) = found {
                return Ok(self.read.split_to(at + end.len()).freeze());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Bytes> {
        while self.read.len() < length {
            self.more().await?;
        }
        Ok(self.read.copy_to_bytes(length))
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
