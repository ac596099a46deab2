use sqlx::{PgPool, postgres::PgSslMode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use super::*;

#[test]
fn payloads_are_keys_or_nothing() {
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
fn channels_have_short_names_of_their_own() {
    let name = |table: &str| channel(&table.parse().expect("a name"));
    assert!(name(&format!("{0}.{0}", "x".repeat(48))).len() < 64);
    assert_ne!(name("a.b"), name("a.c"));
}

/// As much of a PostgreSQL as a listener meets.
struct Server(TcpListener);

impl Server {
    async fn start() -> Self {
        Self(
            TcpListener::bind(("127.0.0.1", 0))
                .await
                .expect("a free port"),
        )
    }

    /// How to connect to it, as this user.
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

    /// The next one who comes, not let in yet.
    async fn guest(&self) -> Guest {
        Guest::of(self.knock().await).await
    }

    async fn knock(&self) -> TcpStream {
        let (stream, _) = self.0.accept().await.expect("somebody");
        stream
    }
}

struct Guest {
    stream: TcpStream,
    introduction: Vec<u8>,
}

impl Guest {
    async fn of(stream: TcpStream) -> Self {
        let mut guest = Self {
            stream,
            introduction: Vec::new(),
        };
        guest.introduction = guest.body().await.expect("who it is");
        guest
    }

    fn is(&self, user: &str) -> bool {
        let said = format!("user\0{user}\0");
        let mut windows = self.introduction.windows(said.len());
        windows.any(|window| window == said.as_bytes())
    }

    /// What a message says after its kind; nothing when its sender has gone.
    async fn body(&mut self) -> Option<Vec<u8>> {
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    async fn say(&mut self, messages: &[u8]) {
        // Who has gone does not hear it.
        let _gone = self.stream.write_all(messages).await;
    }

    /// Lets it in, and waits for it to ask for what a listener wants. Not if it has gone.
    async fn let_in(&mut self) -> bool {
        self.say(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await;
        if self.stream.read_u8().await.is_err() {
            return false;
        }
        let question = self.body().await.expect("a whole question");
        question.starts_with(b"LISTEN")
    }

    /// Does what it was asked.
    async fn done(&mut self) {
        self.say(b"C\0\0\0\x0bLISTEN\0Z\0\0\0\x05I").await;
    }

    /// Does what it asks in farewell, until it has gone.
    async fn gone(mut self) {
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

/// An engine that counts how often everybody is woken.
fn attach(bell: &Bell) -> mpsc::UnboundedReceiver<()> {
    let (woken, wakes) = mpsc::unbounded_channel();
    bell.attach(Wake::new(move |key| {
        if key.is_none() {
            woken.send(()).expect("the test looks");
        }
    }));
    wakes
}

fn bell(connections: Connections<Postgres, Session>) -> Bell {
    Bell::new(connections, &TableName::default())
}

fn of_application(pool: PgPool) -> Connections<Postgres, Session> {
    Connections::of_application(pool, Duration::from_secs(2))
}

/// Real sockets know no other time than the real one, so that it stands still for a moment only.
async fn let_pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

async fn until_ended(bell: &Bell) {
    let tasks = std::mem::take(&mut locked(&bell.state).tasks);
    assert_eq!(tasks.len(), 2);
    while !tasks.iter().all(AbortHandle::is_finished) {
        tokio::task::yield_now().await;
    }
}

/// Every wait of a test, so that one that is in vain ends.
async fn soon<T>(wait: impl Future<Output = T>) -> T {
    let (over, mut ended) = tokio::sync::oneshot::channel::<()>();
    // A clock of its own: the tests move that of the runtime.
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(10));
        drop(over);
    });
    tokio::select! {
        done = wait => done,
        _ = &mut ended => panic!("waited in vain"),
    }
}

#[tokio::test]
async fn a_server_that_lets_us_in_and_says_nothing_is_left_and_all_are_woken_by_the_next() {
    let server = Server::start().await;
    let bell = bell(of_application(server.pool()));
    let mut wakes = attach(&bell);
    let mut silent = soon(server.guest()).await;
    assert!(soon(silent.let_in()).await);
    let_pass(CONNECT * 2).await;
    // What it left behind hangs on the server, so that it does not come again at once.
    let left = Instant::now();
    let next = soon(async {
        let moment = Duration::from_millis(5);
        loop {
            match timeout(moment, server.knock()).await {
                Ok(next) => break next,
                Err(_nobody) => let_pass(Duration::from_secs(1)).await,
            }
        }
    })
    .await;
    assert!(left.elapsed() >= SILENT / 2, "{:?}", left.elapsed());
    let mut next = soon(Guest::of(next)).await;
    assert!(soon(next.let_in()).await);
    assert!(wakes.is_empty(), "nobody listened");
    next.done().await;
    soon(wakes.recv()).await.expect("all are woken");
}

#[tokio::test]
async fn all_are_woken_when_a_connection_was_lost_and_made_anew_slowly() {
    let server = Server::start().await;
    let bell = bell(of_application(server.pool()));
    let mut wakes = attach(&bell);
    let mut first = soon(server.guest()).await;
    assert!(soon(first.let_in()).await);
    first.done().await;
    soon(wakes.recv()).await.expect("all are woken");
    // The new one takes so long that a listener which heard nothing for a while asks whether its server is there.
    let_pass(PING.0 * 3 / 5).await;
    drop(first);
    let mut next = soon(server.guest()).await;
    let_pass(PING.0 * 3 / 5).await;
    while !soon(next.let_in()).await {
        next = soon(server.guest()).await;
    }
    next.done().await;
    soon(wakes.recv()).await.expect("all are woken again");
}

#[tokio::test]
async fn the_pools_options_of_the_moment_are_used() {
    let server = Server::start().await;
    let pool = server.pool();
    let bell = bell(of_application(pool.clone()));
    let mut wakes = attach(&bell);
    let mut first = soon(server.guest()).await;
    assert!(first.is("first"));
    assert!(soon(first.let_in()).await);
    first.done().await;
    soon(wakes.recv()).await.expect("all are woken");
    pool.set_connect_options(server.options("second"));
    drop(first);
    let second = soon(server.guest()).await;
    assert!(second.is("second"));
}

#[tokio::test]
async fn listening_ends_with_the_pool() {
    let server = Server::start().await;
    let pool = server.pool();
    let bell = bell(of_application(pool.clone()));
    let mut wakes = attach(&bell);
    let mut guest = soon(server.guest()).await;
    assert!(soon(guest.let_in()).await);
    guest.done().await;
    soon(wakes.recv()).await.expect("all are woken");
    pool.close().await;
    soon(until_ended(&bell)).await;
    soon(guest.gone()).await;
}

#[tokio::test]
async fn listening_ends_with_the_store_whoever_made_the_connections() {
    let server = Server::start().await;
    let session = Session {
        time_out: Duration::from_secs(2),
    };
    let time_out = session.time_out;
    for connections in [
        Connections::own(server.options("own"), session, 1, time_out),
        of_application(server.pool()),
    ] {
        let bell = bell(connections.clone());
        attach(&bell);
        // Not even let in yet.
        let guest = soon(server.guest()).await;
        connections.close().await;
        soon(until_ended(&bell)).await;
        soon(guest.gone()).await;
        // For an engine that comes too late, too.
        let late = self::bell(connections);
        attach(&late);
        soon(until_ended(&late)).await;
    }
}
