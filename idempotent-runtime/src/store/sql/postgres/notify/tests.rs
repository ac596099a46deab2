use sqlx::{PgPool, postgres::PgSslMode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::*;
use crate::store::{sql::watch::Watch, weakness::Accepted};

#[test]
fn only_keys_are_read_from_payloads() {
    let key = StoreKey::from_bytes([0xa7; 32]);
    assert_eq!(unhex(&hex(key.as_bytes())), Some(key));
    for odd in [
        "",
        "a7",
        &"zz".repeat(32),
        &"ä".repeat(32),
        &"+1".repeat(31),
        &"a7".repeat(33),
    ] {
        assert_eq!(unhex(odd), None, "{odd}");
    }
}

#[test]
fn channels_have_short_and_different_names() {
    let name = |table: &str| channel(&table.parse().expect("a name"));
    assert!(name(&format!("{0}.{0}", "x".repeat(48))).len() < 64);
    assert_ne!(name("a.b"), name("a.c"));
}

/// As much of a PostgreSQL server as a listener uses.
struct Server(TcpListener);

impl Server {
    async fn start() -> Self {
        Self(
            TcpListener::bind(("127.0.0.1", 0))
                .await
                .expect("a free port"),
        )
    }

    /// The options to connect to it as this user.
    fn options(&self, user: &str) -> PgConnectOptions {
        let port = self.0.local_addr().expect("a bound port").port();
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .ssl_mode(PgSslMode::Disable)
            .username(user)
            .database("db")
    }

    /// The application's pool.
    fn pool(&self) -> PgPool {
        PgPoolOptions::new().connect_lazy_with(self.options("first"))
    }

    /// The next client, before its log-in is answered.
    async fn client(&self) -> Client {
        Client::of(self.accept().await).await
    }

    async fn accept(&self) -> TcpStream {
        let (stream, _) = self.0.accept().await.expect("a connection");
        stream
    }
}

struct Client {
    stream: TcpStream,
    startup: Vec<u8>,
}

impl Client {
    async fn of(stream: TcpStream) -> Self {
        let mut client = Self {
            stream,
            startup: Vec::new(),
        };
        client.startup = client.body().await.expect("the start-up message");
        client
    }

    fn is(&self, user: &str) -> bool {
        let said = format!("user\0{user}\0");
        let mut windows = self.startup.windows(said.len());
        windows.any(|window| window == said.as_bytes())
    }

    /// The body of a message, after its kind; `None` when the client has closed the connection.
    async fn body(&mut self) -> Option<Vec<u8>> {
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    async fn say(&mut self, messages: &[u8]) {
        // It fails if the client has closed the connection.
        let _gone = self.stream.write_all(messages).await;
    }

    /// Accepts the log-in and waits for the client's LISTEN. Returns `false` if the client has closed the connection.
    async fn log_in(&mut self) -> bool {
        self.say(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
        if self.stream.read_u8().await.is_err() {
            return false;
        }
        let question = self.body().await.expect("a whole question");
        question.starts_with(b"LISTEN")
    }

    /// Answers the LISTEN.
    async fn done(&mut self) {
        self.say(b"C\0\0\0\x0bLISTEN\0Z\0\0\0\x05I").await;
    }

    /// Answers the client's last messages until it closes the connection.
    async fn closed(mut self) {
        while let Ok(kind) = self.stream.read_u8().await {
            self.body().await;
            match kind {
                b'Q' => self.done().await,
                b'S' => self.say(b"Z\0\0\0\x05I").await,
                _ => {}
            }
        }
    }
}

/// Attaches an engine that reports each time that all waiters are woken.
fn attach(notifier: &Notifier) -> mpsc::UnboundedReceiver<()> {
    let (woken, wakes) = mpsc::unbounded_channel();
    notifier.attach(Wake::new(move |key| {
        if key.is_none() {
            woken.send(()).expect("the test holds the receiver");
        }
    }));
    wakes
}

fn notifier(connections: Connections<Postgres>) -> Notifier {
    Notifier::new(connections, &TableName::default())
}

/// Knows no server, and so asks none.
fn watch() -> Arc<Watch> {
    Arc::new(Watch::new::<Postgres>(
        &TableName::default(),
        Accepted::default(),
    ))
}

fn of_application(pool: PgPool) -> Connections<Postgres> {
    Connections::of_application(pool, Duration::from_secs(2), watch())
}

/// Advances the clock. It is paused for this moment only, because sockets need the real time.
async fn let_pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn until_ended(notifier: &Notifier) {
    let tasks = std::mem::take(&mut locked(&notifier.state).tasks);
    assert_eq!(tasks.len(), 2);
    while !tasks.iter().all(AbortHandle::is_finished) {
        tokio::task::yield_now().await;
    }
}

/// Bounds every wait of a test.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    let (over, mut ended) = tokio::sync::oneshot::channel::<()>();
    // With a clock of its own: the tests move that of the runtime.
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        drop(over);
    });
    tokio::select! {
        done = wait => done,
        _ = &mut ended => panic!("waited ten seconds for nothing"),
    }
}

#[tokio::test]
async fn an_unresponsive_server_is_left_and_all_waiters_are_woken_on_the_next_connection() {
    let server = Server::start().await;
    let notifier = notifier(of_application(server.pool()));
    let mut wakes = attach(&notifier);
    let mut unresponsive = soon(server.client()).await;
    assert!(soon(unresponsive.log_in()).await);
    let_pass(CONNECT * 2).await;
    // The abandoned connection still hangs on the server, so the listener does not come again at once.
    let left = Instant::now();
    let next = soon(async {
        let moment = Duration::from_millis(5);
        loop {
            match timeout(moment, server.accept()).await {
                Ok(next) => break next,
                Err(_nobody) => let_pass(Duration::from_secs(1)).await,
            }
        }
    })
    .await;
    assert!(left.elapsed() >= UNRESPONSIVE / 2, "{:?}", left.elapsed());
    let mut next = soon(Client::of(next)).await;
    assert!(soon(next.log_in()).await);
    assert!(wakes.is_empty(), "no LISTEN was answered yet");
    next.done().await;
    soon(wakes.recv()).await.expect("all are woken");
}

#[tokio::test]
async fn all_waiters_are_woken_when_a_lost_connection_is_made_again_slowly() {
    let server = Server::start().await;
    let notifier = notifier(of_application(server.pool()));
    let mut wakes = attach(&notifier);
    let mut first = soon(server.client()).await;
    assert!(soon(first.log_in()).await);
    first.done().await;
    soon(wakes.recv()).await.expect("all are woken");
    // The new connection takes so long that a listener without messages would have pinged its server.
    let_pass(PING.0 * 3 / 5).await;
    drop(first);
    let mut next = soon(server.client()).await;
    let_pass(PING.0 * 3 / 5).await;
    while !soon(next.log_in()).await {
        next = soon(server.client()).await;
    }
    next.done().await;
    soon(wakes.recv()).await.expect("all are woken again");
}

#[tokio::test]
async fn the_listener_connects_with_the_pools_current_options() {
    let server = Server::start().await;
    let pool = server.pool();
    let notifier = notifier(of_application(pool.clone()));
    let mut wakes = attach(&notifier);
    let mut first = soon(server.client()).await;
    assert!(first.is("first"));
    assert!(soon(first.log_in()).await);
    first.done().await;
    soon(wakes.recv()).await.expect("all are woken");
    pool.set_connect_options(server.options("second"));
    drop(first);
    let second = soon(server.client()).await;
    assert!(second.is("second"));
}

#[tokio::test]
async fn listening_ends_with_the_pool() {
    let server = Server::start().await;
    let pool = server.pool();
    let notifier = notifier(of_application(pool.clone()));
    let mut wakes = attach(&notifier);
    let mut client = soon(server.client()).await;
    assert!(soon(client.log_in()).await);
    client.done().await;
    soon(wakes.recv()).await.expect("all are woken");
    pool.close().await;
    soon(until_ended(&notifier)).await;
    soon(client.closed()).await;
}

#[tokio::test]
async fn listening_ends_with_the_store_for_own_and_application_pools() {
    let server = Server::start().await;
    let time_out = Duration::from_secs(2);
    for connections in [
        Connections::own(server.options("own"), 1, time_out, watch()),
        of_application(server.pool()),
    ] {
        let notifier = notifier(connections.clone());
        attach(&notifier);
        // Before the log-in is answered.
        let client = soon(server.client()).await;
        connections.close().await;
        soon(until_ended(&notifier)).await;
        soon(client.closed()).await;
        // Also for an engine that is attached too late.
        let late = self::notifier(connections);
        attach(&late);
        soon(until_ended(&late)).await;
    }
}
