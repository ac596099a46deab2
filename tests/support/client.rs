//! A client that speaks HTTP/1.1 or h2, for cases that hold on both.

use std::io;

use super::{Conn, H2Conn, Seen, Server, TestRequest, TestResponse};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    H2,
}

pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::H2];

/// One connection.
pub(crate) enum Client {
    Http1(Conn),
    H2(H2Conn),
}

impl Client {
    pub(crate) async fn open(protocol: Protocol, server: &Server) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(Conn::open(server.address).await),
            Protocol::H2 => Self::H2(H2Conn::open(server.address).await),
        }
    }

    /// Sends a request and reads the response, or how it broke off.
    pub(crate) async fn try_send(&mut self, request: &TestRequest) -> io::Result<TestResponse> {
        self.watch(request, &Seen::default()).await
    }

    /// Sends a request and reads the response.
    pub(crate) async fn send(&mut self, request: &TestRequest) -> TestResponse {
        self.try_send(request).await.expect("a whole response")
    }

    /// As [`try_send`](Self::try_send), and notes what has arrived.
    pub(crate) async fn watch(
        &mut self,
        request: &TestRequest,
        seen: &Seen,
    ) -> io::Result<TestResponse> {
        match self {
            Self::Http1(conn) => {
                conn.send(&request.wire()).await;
                conn.watch(seen).await
            }
            Self::H2(conn) => conn.send(request).await.watch(seen).await,
        }
    }
}
