//! A TCP proxy between a store and its server that fails on command.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use super::servers::free_port;

/// Forwards everything to one server unless a fault is set. It listens for as long as the process lives.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    server: AtomicU16,
    /// Both ends of every connection so far.
    connections: Mutex<Vec<TcpStream>>,
    refusing: AtomicBool,
    /// Requests are forwarded, replies are dropped.
    silent: AtomicBool,
    /// The next reply is dropped and its connection closed.
    lose: AtomicBool,
    /// Replaces the next reply; then the connection is closed.
    replacement: Mutex<Option<Vec<u8>>>,
    delay_ms: AtomicU64,
    request_ms: AtomicU64,
    greeting_ms: AtomicU64,
    lost: AtomicU64,
    accepted: AtomicU64,
    closed: AtomicU64,
}

impl Proxy {
    /// A proxy to the server on this port.
    pub(crate) fn to(server: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port for the proxy");
        let state = Arc::new(State {
            server: AtomicU16::new(server),
            ..State::default()
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // If the server cannot be reached, the client's connection is closed.
                let _away = accepting.pass(client);
            }
        });
        Self { port, state }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Forwards new connections to the server on this port.
    pub(crate) fn move_to(&self, server: u16) {
        self.state.server.store(server, Ordering::SeqCst);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        for connection in self.state.connections().drain(..) {
            let _closed = connection.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, yes: bool) {
        self.state.refusing.store(yes, Ordering::SeqCst);
    }

    /// Whether replies are dropped while their connection stays open.
    pub(crate) fn silence(&self, yes: bool) {
        self.state.silent.store(yes, Ordering::SeqCst);
    }

    /// The server gets the next request and answers it; the client's connection is closed without the reply.
    pub(crate) fn lose_next_reply(&self) {
        self.state.lose.store(true, Ordering::SeqCst);
    }

    /// How many replies were lost by [`lose_next_reply`](Self::lose_next_reply).
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    /// The server's next reply is this one instead, and then its connection is closed.
    pub(crate) fn replace_next_reply(&self, reply: Vec<u8>) {
        *self.state.replacement() = Some(reply);
    }

    /// How many connections were accepted so far.
    pub(crate) fn accepted(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> u64 {
        self.accepted() - self.state.closed.load(Ordering::SeqCst)
    }

    /// Delays every reply by this.
    pub(crate) fn delay(&self, by: Duration) {
        self.state.delay_ms.store(millis(by), Ordering::SeqCst);
    }

    /// Delays every request by this, also if its connection is closed meanwhile: it arrives late.
    pub(crate) fn delay_requests(&self, by: Duration) {
        self.state.request_ms.store(millis(by), Ordering::SeqCst);
    }

    /// Delays the first reply on a new connection by this.
    pub(crate) fn delay_greetings(&self, by: Duration) {
        self.state.greeting_ms.store(millis(by), Ordering::SeqCst);
    }
}

impl State {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections.lock().expect("nothing panics under it")
    }

    fn replacement(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.replacement.lock().expect("nothing panics under it")
    }

    fn pass(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        if self.refusing.load(Ordering::SeqCst) {
            return Ok(());
        }
        let server = TcpStream::connect(("127.0.0.1", self.server.load(Ordering::SeqCst)))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        self.connections()
            .extend([client.try_clone()?, server.try_clone()?]);
        let (requests, replies) = (client.try_clone()?, server.try_clone()?);
        self.accepted.fetch_add(1, Ordering::SeqCst);
        let state = Arc::clone(self);
        thread::spawn(move || {
            copy(requests, server, || {
                sleep(&state.request_ms);
                Next::Pass
            });
            state.closed.fetch_add(1, Ordering::SeqCst);
        });
        let state = Arc::clone(self);
        thread::spawn(move || {
            sleep(&state.greeting_ms);
            copy(replies, client, || state.reply());
        });
        Ok(())
    }

    /// Decides what happens to a reply.
    fn reply(&self) -> Next {
        sleep(&self.delay_ms);
        if self.lose.swap(false, Ordering::SeqCst) {
            self.lost.fetch_add(1, Ordering::SeqCst);
            Next::Close
        } else if let Some(reply) = self.replacement().take() {
            Next::Last(reply)
        } else if self.silent.load(Ordering::SeqCst) {
            Next::Swallow
        } else {
            Next::Pass
        }
    }
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).expect("a delay")
}

fn sleep(millis: &AtomicU64) {
    thread::sleep(Duration::from_millis(millis.load(Ordering::SeqCst)));
}

enum Next {
    Pass,
    Swallow,
    Last(Vec<u8>),
    Close,
}

/// Copies until an end closes, then closes the other.
fn copy(mut from: TcpStream, mut to: TcpStream, next: impl Fn() -> Next) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        match next() {
            Next::Pass if to.write_all(&buffer[..length]).is_ok() => {}
            Next::Swallow => {}
            Next::Last(reply) => {
                // The client may have closed its end.
                let _gone = to.write_all(&reply);
                break;
            }
            _ => break,
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
