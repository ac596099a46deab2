//! The ways in which a client disconnects, over HTTP/1.1 and over h2.

use std::future::Future;

use super::{Conn, H2Conn, Server, TestRequest};

/// How a client disconnects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Disconnect {
    Close,
    Reset,
    HalfClose,
    ResetStream,
    CloseAll,
}

pub(crate) const DISCONNECTS: [Disconnect; 5] = [
    Disconnect::Close,
    Disconnect::Reset,
    Disconnect::HalfClose,
    Disconnect::ResetStream,
    Disconnect::CloseAll,
];

/// Sends a request, waits until `when` is over, and disconnects.
pub(crate) async fn send_and_disconnect(
    server: &Server,
    request: &TestRequest,
    disconnect: Disconnect,
    when: impl Future<Output = ()>,
) {
    if let Disconnect::ResetStream | Disconnect::CloseAll = disconnect {
        let mut conn = H2Conn::open(server.address).await;
        let stream = conn.send(request).await;
        when.await;
        if let Disconnect::ResetStream = disconnect {
            stream.reset();
            // Without this the end of the connection might overtake the reset.
            conn.flush().await;
        }
        conn.close();
        return;
    }
    let mut conn = Conn::open(server.address).await;
    conn.send(&request.wire()).await;
    when.await;
    match disconnect {
        Disconnect::Reset => conn.reset(),
        Disconnect::HalfClose => {
            conn.half_close().await;
            conn.closed().await;
        }
        _ => conn.close(),
    }
}
