//! A proxy that cuts a connection after so many bytes.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What of an exchange gets through before it is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// So many bytes of the request, and nothing of an answer.
    Request(usize),
    /// The request, and so many bytes of the answer.
    Answer(usize),
}

/// Cuts its first connection, and passes everything on afterwards.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    /// How many bytes of the first request and of its answer came by.
    pub(crate) seen: Arc<(AtomicUsize, AtomicUsize)>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<(AtomicUsize, AtomicUsize)>::default();
        let (counted, is_first) = (Arc::clone(&seen), AtomicBool::new(true));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(server).await.unwrap();
                let (request, answer) = match cut {
                    _ if !is_first.swap(false, Ordering::SeqCst) => (usize::MAX, usize::MAX),
                    Cut::Request(bytes) => (bytes, 0),
                    Cut::Answer(bytes) => (usize::MAX, bytes),
                };
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = upstream.into_split();
                    tokio::select! {
                        _ = pass(&mut from_client, &mut to_server, request, &counted.0) => {}
                        _ = pass(&mut from_server, &mut to_client, answer, &counted.1) => {}
                    }
                });
            }
        });
        Self { address, seen }
    }
}

/// Passes so many bytes on. It ends where the rest would follow.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    most: usize,
    counted: &AtomicUsize,
) -> io::Result<()> {
    let mut left = most;
    let mut buffer = [0; 4096];
    loop {
        let read = from.read(&mut buffer).await?;
        counted.fetch_add(read, Ordering::SeqCst);
        to.write_all(&buffer[..read.min(left)]).await?;
        to.flush().await?;
        if read == 0 || read > left {
            return Ok(());
        }
        left -= read;
    }
}
