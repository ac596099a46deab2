//! Fake servers whose answers a test chooses, for states that a real server is rarely in.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{ConnectionInfo, IntoConnectionInfo as _};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};

/// The reply to a command, whose words are joined by spaces. `None`: no reply.
type Answer = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A server on a port of its own. Dropping it closes its connections.
pub(super) struct Fake {
    port: u16,
    shared: Arc<Shared>,
    serving: JoinSet<()>,
}

struct Shared {
    answer: Mutex<Answer>,
    delay: Mutex<Duration>,
    heard: Mutex<Vec<String>>,
    closes_after: Mutex<Option<&'static str>>,
    open: AtomicUsize,
}

impl Fake {
    /// A node that reports sound settings and answers operations with `1`.
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            answer: Mutex::new(Arc::new(|command| Some(usual(command)))),
            delay: Mutex::default(),
            heard: Mutex::default(),
            closes_after: Mutex::default(),
            open: AtomicUsize::default(),
        });
        let mut serving = JoinSet::new();
        let accepting = Arc::clone(&shared);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(accepting.clone().serve(stream));
            }
        });
        Self {
            port,
            shared,
            serving,
        }
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        let url = format!("redis://127.0.0.1:{}", self.port);
        url.into_connection_info().expect("a URL")
    }

    /// Replies to commands with this beginning from now on; other replies stay. `None`: no reply.
    pub(super) fn says(&self, to: &'static str, reply: impl Into<Option<String>>) {
        let reply = reply.into();
        self.answers(to, move |_| reply.clone());
    }

    /// As [`says`](Self::says), with a reply that depends on the whole command.
    pub(super) fn answers(
        &self,
        to: &'static str,
        reply: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) {
        let mut answer = lock(&self.shared.answer);
        let before = Arc::clone(&answer);
        *answer = Arc::new(move |command| {
            if command.starts_with(to) {
                reply(command)
            } else {
                before(command)
            }
        });
    }

    /// Delays its replies by this time from now on.
    pub(super) fn delay(&self, by: Duration) {
        *lock(&self.shared.delay) = by;
    }

    /// Closes the connection after its reply to a command with this beginning, from now on.
    pub(super) fn closes_after(&self, beginning: &'static str) {
        *lock(&self.shared.closes_after) = Some(beginning);
    }

    /// The commands with this beginning that it has received.
    pub(super) fn heard(&self, beginning: &str) -> Vec<String> {
        let heard = lock(&self.shared.heard);
        let those = heard.iter().filter(|said| said.starts_with(beginning));
        those.cloned().collect()
    }

    /// How many connections are open.
    pub(super) fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Stops listening, and closes all connections.
    pub(super) async fn stop(&mut self) {
        self.serving.shutdown().await;
    }
}

impl Shared {
    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        self.open.fetch_add(1, Ordering::SeqCst);
        while let Some(command) = command(&mut stream).await {
            lock(&self.heard).push(command.clone());
            let answer = Arc::clone(&lock(&self.answer));
            let delay = *lock(&self.delay);
            sleep(delay).await;
            if let Some(reply) = answer(&command)
                && stream.write_all(reply.as_bytes()).await.is_err()
            {
                break;
            }
            let last = *lock(&self.closes_after);
            if last.is_some_and(|last| command.starts_with(last)) {
                break;
            }
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next command, its words joined by spaces; `None` at the end of the connection.
async fn command(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let words = length(stream).await?;
    let mut command = Vec::new();
    for _ in 0..words {
        let mut word = vec![0; length(stream).await? + 2];
        stream.read_exact(&mut word).await.ok()?;
        word.truncate(word.len() - 2);
        command.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(command.join(" "))
}

async fn length(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.get(1..)?.trim().parse().ok()
}

fn usual(command: &str) -> String {
    let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
    match name {
        "INFO" => info("7.0.0", "1", "master"),
        "CONFIG" => "*0\r\n".to_owned(),
        "ROLE" => format!("*3\r\n{}:0\r\n*0\r\n", text("master")),
        "SCRIPT" => text("hash"),
        "EVALSHA" | "PEXPIRE" => ":1\r\n".to_owned(),
        "HELLO" => format!("%1\r\n{}:3\r\n", text("proto")),
        "SUBSCRIBE" | "UNSUBSCRIBE" | "SSUBSCRIBE" | "SUNSUBSCRIBE" => {
            format!(">3\r\n{}{}:1\r\n", text(&name.to_lowercase()), text(rest))
        }
        "PING" => "+PONG\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    }
}

pub(super) fn text(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// The reply to `INFO`.
pub(super) fn info(version: &str, append_only: &str, role: &str) -> String {
    text(&format!(
        "redis_version:{version}\r\naof_enabled:{append_only}\r\nmaxmemory:0\r\nrole:{role}\r\ncluster_enabled:1\r\n"
    ))
}

/// The first and last slot of a range, and host and port of its primary and replicas.
pub(super) type Row<'a> = (u16, u16, &'a [(&'a str, u16)]);

/// The answer to `CLUSTER SLOTS`.
pub(super) fn slots(rows: &[Row<'_>]) -> String {
    let node =
        |(host, port): &(&str, u16)| format!("*3\r\n{}:{port}\r\n{}", text(host), text("id"));
    let row = |(first, last, nodes): &Row<'_>| {
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        let head = format!("*{}\r\n:{first}\r\n:{last}\r\n", nodes.len() + 2);
        head + &nodes.concat()
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    format!("*{}\r\n{}", rows.len(), rows.concat())
}

/// Waits until the condition holds, for at most ten seconds.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "waited ten seconds for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
