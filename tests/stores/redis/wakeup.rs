//! Waiting across processes: two engines with connections of their own share nothing but the server.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use axum::{Extension, Router, routing::post};
use idempotent_runtime::{Idempotency, idempotent, store::redis::RedisStore};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc, watch},
};

use crate::{proxy::Proxy, servers::redis::Redis, sql_waiting::within};

/// A service in front of the store, as another process would have it.
struct Service {
    address: std::net::SocketAddr,
}

#[derive(Clone)]
struct Till {
    started: mpsc::UnboundedSender<()>,
    gate: watch::Receiver<bool>,
    completed: mpsc::UnboundedSender<Instant>,
}

#[idempotent(wait_timeout = "20s")]
async fn pay(Extension(mut till): Extension<Till>) -> &'static str {
    till.started.send(()).unwrap();
    till.gate.wait_for(|open| *open).await.unwrap();
    till.completed.send(Instant::now()).unwrap();
    "paid"
}

impl Service {
    async fn start(url: &str, till: Till) -> Self {
        let store = RedisStore::connect(url).await.unwrap();
        let engine = Idempotency::builder().store(store).build().unwrap();
        let app = Router::new()
            .route("/pay", post(pay))
            .layer(Extension(till))
            .layer(Extension(engine));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { address }
    }

    /// The answer, and when it came.
    async fn pay(&self, key: &str) -> (String, Instant) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "POST /pay HTTP/1.1\r\nhost: x\r\nidempotency-key: {key}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer, Instant::now())
    }
}

/// From the end of the handler in one engine to the answer of the waiter in the other.
async fn latency(
    first: &Service,
    second: &Service,
    key: &str,
    gate: &watch::Sender<bool>,
    heard: &mut Heard,
) -> Duration {
    gate.send_replace(false);
    let (executed, replayed) = tokio::join!(first.pay(key), async {
        heard.started.recv().await.unwrap();
        let open = async {
            // Long enough for the waiter's polling to have slowed down to twice a second.
            tokio::time::sleep(Duration::from_millis(1200)).await;
            gate.send_replace(true);
        };
        tokio::join!(second.pay(key), open).0
    });
    assert!(executed.0.ends_with("paid"), "{}", executed.0);
    assert!(
        replayed.0.contains("idempotent-replay: true"),
        "{}",
        replayed.0
    );
    replayed
        .1
        .duration_since(heard.completed.recv().await.unwrap())
}

/// The latencies of so many keys between two engines.
pub(super) async fn across(first: &str, second: &str, keys: usize) -> Vec<Duration> {
    let (till, gate, mut heard) = till();
    let first = Service::start(first, till.clone()).await;
    let second = Service::start(second, till).await;
    let mut latencies = Vec::new();
    for _ in 0..keys {
        latencies.push(latency(&first, &second, &new_key(), &gate, &mut heard).await);
    }
    latencies
}

/// A key that no measurement before used.
fn new_key() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

struct Heard {
    started: mpsc::UnboundedReceiver<()>,
    completed: mpsc::UnboundedReceiver<Instant>,
}

fn till() -> (Till, watch::Sender<bool>, Heard) {
    let (gate, opened) = watch::channel(false);
    let (started, on_start) = mpsc::unbounded_channel();
    let (completed, on_completion) = mpsc::unbounded_channel();
    let till = Till {
        started,
        gate: opened,
        completed,
    };
    let heard = Heard {
        started: on_start,
        completed: on_completion,
    };
    (till, gate, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_elsewhere_replays_within_50_ms_of_the_completion() {
    let Some(redis) = Redis::start() else { return };
    within(Duration::from_millis(50), async || {
        let latencies = across(&redis.url(), &redis.url(), 5).await;
        println!("completion to replay in another engine: {latencies:?}");
        latencies
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_push_a_waiter_elsewhere_replays_within_500_ms() {
    let Some(redis) = Redis::start() else { return };
    let (till, gate, heard) = till();
    let first = Service::start(&redis.url(), till.clone()).await;
    // The second engine's user may not listen.
    redis.ask(&[
        "ACL",
        "SETUSER",
        "deaf",
        "on",
        ">pw",
        "~*",
        "+@all",
        "-subscribe",
    ]);
    let deaf = format!("redis://deaf:pw@127.0.0.1:{}", redis.port());
    let second = Service::start(&deaf, till).await;
    let listening = redis.ask_all(&["PUBSUB", "NUMSUB", "idempotent:done"]);
    assert!(
        listening.contains(":1\r\n"),
        "only the first listens: {listening}"
    );
    let heard = Mutex::new(heard);
    within(Duration::from_millis(500), async || {
        let mut heard = heard.lock().await;
        let waited = latency(&first, &second, &new_key(), &gate, &mut heard).await;
        println!("completion to replay in another engine without push: {waited:?}");
        vec![waited]
    })
    .await;
}

/// The listener's connection breaks; a while later pushes arrive again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_was_cut_off_listens_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let proxy = Proxy::to(redis.port());
    let (till, gate, mut heard) = till();
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let first = Service::start(&redis.url(), till.clone()).await;
    let second = Service::start(&url, till).await;
    latency(&first, &second, &new_key(), &gate, &mut heard).await;
    proxy.cut();
    tokio::task::block_in_place(|| redis.restart());
    tokio::task::block_in_place(|| {
        crate::servers::until("both listeners", || {
            let reply = redis.ask_all(&["PUBSUB", "NUMSUB", "idempotent:done"]);
            reply.contains(":2\r\n").then_some(())
        });
    });
    let heard = Mutex::new(heard);
    within(Duration::from_millis(50), async || {
        let mut heard = heard.lock().await;
        let waited = latency(&first, &second, &new_key(), &gate, &mut heard).await;
        println!("completion to replay after both listeners were cut off: {waited:?}");
        vec![waited]
    })
    .await;
}
