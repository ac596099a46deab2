//! A TCP proxy between a store and its server that treats the next COMMIT by itself.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{Notify, watch},
};

/// What happens to the next COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// The server never gets it, and the connection breaks.
    LoseRequest,
    /// The server gets it, and the connection breaks instead of the reply.
    LoseReply,
    /// The server does not get it, and nothing breaks.
    Freeze,
    /// The server gets it when it is let go, whatever has happened since.
    Delay,
}

#[derive(Clone)]
pub(crate) struct Commits {
    port: u16,
    next: Arc<Mutex<Option<Treatment>>>,
    /// Which message is treated.
    word: &'static [u8],
    let_go: Arc<Notify>,
    /// Changes when all connections break.
    cut: watch::Sender<()>,
    /// Whether new connections reach the server, or wait.
    admits: watch::Sender<bool>,
}

impl Commits {
    /// Treats messages with this word, in front of a server on this port.
    pub(crate) async fn before(server: u16, word: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let proxy = Self {
            port,
            next: Arc::default(),
            word: word.as_bytes(),
            let_go: Arc::default(),
            cut: watch::Sender::new(()),
            admits: watch::Sender::new(true),
        };
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let proxy = accepting.clone();
                tokio::spawn(async move { proxy.connect(client, server).await });
            }
        });
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn treat(&self, treatment: Treatment) {
        *self.next.lock().unwrap() = Some(treatment);
    }

    /// Whether a message was treated since.
    pub(crate) fn has_treated(&self) -> bool {
        self.next.lock().unwrap().is_none()
    }

    /// Breaks all connections that there are.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(());
    }

    /// Lets new connections through, or has them wait.
    pub(crate) fn admit(&self, admits: bool) {
        self.admits.send_replace(admits);
    }

    /// Sends what was delayed.
    pub(crate) fn let_go(&self) {
        self.let_go.notify_one();
    }

    async fn connect(&self, client: TcpStream, server: u16) {
        let mut admits = self.admits.subscribe();
        if admits.wait_for(|admits| *admits).await.is_err() {
            return;
        }
        let address = SocketAddr::from(([127, 0, 0, 1], server));
        let Ok(server) = TcpStream::connect(address).await else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("no delay");
        }
        let (mut from_client, mut to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let broken = Arc::new(Notify::new());
        let lose_reply = Arc::new(Mutex::new(false));
        let replies = {
            let (broken, lose) = (Arc::clone(&broken), Arc::clone(&lose_reply));
            tokio::spawn(async move {
                if pass_replies(from_server, &mut to_client, &lose).await {
                    broken.notify_one();
                }
            })
        };
        let mut buffer = vec![0; 1 << 16];
        let mut cut = self.cut.subscribe();
        loop {
            let read = tokio::select! {
                read = from_client.read(&mut buffer) => read,
                () = broken.notified() => return,
                _ = cut.changed() => {
                    replies.abort();
                    return;
                }
            };
            let Ok(read @ 1..) = read else { break };
            let message = &buffer[..read];
            let hit = message
                .windows(self.word.len())
                .any(|part| part == self.word);
            let treatment = if hit {
                self.next.lock().unwrap().take()
            } else {
                None
            };
            match treatment {
                None => {}
                Some(Treatment::LoseRequest) => {
                    replies.abort();
                    return;
                }
                Some(Treatment::LoseReply) => *lose_reply.lock().unwrap() = true,
                Some(Treatment::Freeze) => {
                    // The server's side stays open.
                    std::future::pending::<()>().await;
                }
                Some(Treatment::Delay) => self.let_go.notified().await,
            }
            if to_server.write_all(message).await.is_err() {
                break;
            }
        }
    }
}

/// Passes replies on; `true` if one was to be lost and has arrived.
async fn pass_replies(
    mut from: OwnedReadHalf,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    lose: &Mutex<bool>,
) -> bool {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if *lose.lock().unwrap() {
            return true;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    false
}
