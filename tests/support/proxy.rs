//! A TCP proxy between a store and its server that fails on command.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
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
    /// Requests are forwarded, replies are held.
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
    /// Requests that are treated by themselves, and what happens to them.
    awaited: Mutex<Vec<Awaited>>,
}

/// The next request about a record, after so many that are passed on.
#[derive(Debug)]
struct Awaited {
    record: [u8; 32],
    skip: usize,
    message: Message,
}

/// A message that the proxy treats by itself. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Message(Arc<Treated>);

#[derive(Debug)]
struct Treated {
    treatment: Treatment,
    stage: Mutex<Stage>,
    changed: Condvar,
}

/// What happens to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// The request is held back until it is let go; its connection stays open.
    HoldRequest,
    /// The request is held back, and its connection is closed at once, as by a balancer that loses its state.
    HoldRequestAndClose,
    /// The server gets the request; its reply is held back.
    HoldReply,
    /// The server gets the request; its connection is closed instead of the reply.
    LoseReply,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Awaited,
    /// The proxy has it.
    Arrived,
    LetGo,
    /// The server has answered it.
    Answered,
}

/// What both directions of one connection share.
#[derive(Debug, Default)]
struct Line {
    /// How many replies the server has sent.
    replies: Mutex<u64>,
    replied: Condvar,
    /// The message whose reply comes next.
    next_reply: Mutex<Option<Message>>,
}

impl Message {
    /// Whether the proxy has it: a request, or for a reply the server's answer.
    pub(crate) fn arrived(&self) -> bool {
        *self.stage() >= Stage::Arrived
    }

    /// Passes it on. A request reaches the server even if its sender has gone.
    pub(crate) fn let_go(&self) {
        self.reach(Stage::LetGo);
    }

    /// Whether the server has carried the request out and answered it.
    pub(crate) fn answered(&self) -> bool {
        *self.stage() == Stage::Answered
    }

    fn holds_request(&self) -> bool {
        matches!(
            self.0.treatment,
            Treatment::HoldRequest | Treatment::HoldRequestAndClose
        )
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        lock(&self.0.stage)
    }

    fn reach(&self, stage: Stage) {
        let mut reached = self.stage();
        *reached = stage.max(*reached);
        self.0.changed.notify_all();
    }

    fn wait_until_let_go(&self) {
        let mut stage = self.stage();
        while *stage < Stage::LetGo {
            stage = self
                .0
                .changed
                .wait(stage)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
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

    /// Whether replies are held while their connection stays open, as by a server that stalls or a network that fails.
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

    /// Treats the next request about the record with this store key by itself, after `skip` others about it.
    pub(crate) fn treat(&self, record: [u8; 32], skip: usize, treatment: Treatment) -> Message {
        let message = Message(Arc::new(Treated {
            treatment,
            stage: Mutex::new(Stage::Awaited),
            changed: Condvar::new(),
        }));
        lock(&self.state.awaited).push(Awaited {
            record,
            skip,
            message: message.clone(),
        });
        message
    }

    /// Messages that have not come yet are passed on. Those that are held back stay so.
    pub(crate) fn treat_no_more(&self) {
        lock(&self.state.awaited).clear();
    }

    /// Delays the first reply on a new connection by this.
    pub(crate) fn delay_greetings(&self, by: Duration) {
        self.state.greeting_ms.store(millis(by), Ordering::SeqCst);
    }
}

impl State {
    fn connections(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        lock(&self.connections)
    }

    fn replacement(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        lock(&self.replacement)
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
        let line = Arc::new(Line::default());
        let (state, of) = (Arc::clone(self), Arc::clone(&line));
        thread::spawn(move || {
            state.copy_requests(&requests, &server, &of);
            close(&requests, &server);
            state.closed.fetch_add(1, Ordering::SeqCst);
        });
        let state = Arc::clone(self);
        thread::spawn(move || {
            sleep(&state.greeting_ms);
            state.copy_replies(&replies, &client, &line);
            close(&replies, &client);
        });
        Ok(())
    }

    fn copy_requests(&self, mut client: &TcpStream, mut server: &TcpStream, line: &Line) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = client.read(&mut buffer) {
            sleep(&self.request_ms);
            let request = &buffer[..length];
            let (held, of_reply) = match self.awaited(request) {
                Some(message) if message.holds_request() => (Some(message), None),
                message => (None, message),
            };
            if let Some(held) = &held {
                if held.0.treatment == Treatment::HoldRequestAndClose {
                    let _closed = client.shutdown(Shutdown::Both);
                }
                held.reach(Stage::Arrived);
                held.wait_until_let_go();
            }
            let replies = line.replies();
            *lock(&line.next_reply) = of_reply;
            if server.write_all(request).is_err() {
                return;
            }
            // Its sender has probably gone: the connection must not end before the server has carried the request out.
            if let Some(held) = held
                && line.replied_since(replies)
            {
                held.reach(Stage::Answered);
            }
        }
    }

    fn copy_replies(&self, mut server: &TcpStream, mut client: &TcpStream, line: &Line) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            let message = lock(&line.next_reply).take();
            line.reply();
            if let Some(message) = message {
                message.reach(Stage::Arrived);
                if message.0.treatment == Treatment::LoseReply {
                    message.reach(Stage::Answered);
                    return;
                }
                message.wait_until_let_go();
                message.reach(Stage::Answered);
            }
            match self.next() {
                Next::Pass if client.write_all(&buffer[..length]).is_ok() => {}
                Next::Last(reply) => {
                    // The client may have closed its end.
                    let _gone = client.write_all(&reply);
                    return;
                }
                Next::Pass | Next::Close => return,
            }
        }
    }

    /// The message that this request is, if it is to be treated by itself.
    fn awaited(&self, request: &[u8]) -> Option<Message> {
        let mut awaited = lock(&self.awaited);
        let at = awaited
            .iter()
            .position(|awaited| is_about(request, &awaited.record))?;
        if let Some(left) = awaited[at].skip.checked_sub(1) {
            awaited[at].skip = left;
            return None;
        }
        Some(awaited.remove(at).message)
    }

    /// Decides what happens to a reply.
    fn next(&self) -> Next {
        sleep(&self.delay_ms);
        if self.lose.swap(false, Ordering::SeqCst) {
            self.lost.fetch_add(1, Ordering::SeqCst);
            Next::Close
        } else if let Some(reply) = self.replacement().take() {
            Next::Last(reply)
        } else {
            while self.silent.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            Next::Pass
        }
    }
}

impl Line {
    fn replies(&self) -> u64 {
        *lock(&self.replies)
    }

    fn reply(&self) {
        *lock(&self.replies) += 1;
        self.replied.notify_all();
    }

    /// Waits until the server has sent one more reply; `false` if it sends none.
    fn replied_since(&self, before: u64) -> bool {
        let replies = lock(&self.replies);
        let answer = self
            .replied
            .wait_timeout_while(replies, Duration::from_secs(20), |replies| {
                *replies == before
            });
        !answer.is_ok_and(|(_, waited)| waited.timed_out())
    }
}

/// Whether a request names this record: stores send its key as bytes or in hexadecimal.
fn is_about(request: &[u8], record: &[u8; 32]) -> bool {
    let hex = record.map(|byte| format!("{byte:02x}")).concat();
    let contains = |text: &[u8]| request.windows(text.len()).any(|window| window == text);
    contains(record) || contains(hex.as_bytes())
}

/// The values are consistent whenever their lock is free, so a poisoned lock is as good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).expect("a delay")
}

fn sleep(millis: &AtomicU64) {
    thread::sleep(Duration::from_millis(millis.load(Ordering::SeqCst)));
}

enum Next {
    Pass,
    Last(Vec<u8>),
    Close,
}

fn close(one: &TcpStream, other: &TcpStream) {
    let _closed = (one.shutdown(Shutdown::Both), other.shutdown(Shutdown::Both));
}
