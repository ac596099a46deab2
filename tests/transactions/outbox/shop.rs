//! A handler that writes a row and enqueues messages, and a receiver that remembers what it got.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use http::Request;
use http_body_util::BodyExt as _;
use idempotent_runtime::{
    Builder, Idempotency, Policy, Transaction, idempotent,
    outbox::{Delivery, DeliveryError, Message, Relay, RelayBuilder},
    store::AnyStore,
};
use sqlx::Connection as _;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use crate::database::{TestDatabase, World};

/// A process that serves requests.
pub(super) struct Shop<Db: TestDatabase> {
    pub(super) world: World<Db>,
    pub(super) engine: Idempotency,
    router: Router,
}

impl<Db: TestDatabase> Shop<Db> {
    pub(super) fn new(world: World<Db>) -> Self {
        let store = world.store.clone();
        Self::over(world, store)
    }

    pub(super) fn over(world: World<Db>, store: AnyStore) -> Self {
        Self::of(Idempotency::builder().store(store), world)
    }

    /// With these settings.
    pub(super) fn of(builder: Builder, world: World<Db>) -> Self {
        let policy = Policy::new().lease(Duration::from_secs(5));
        let engine = builder.policy(policy).build();
        let engine = engine.expect("an engine");
        let router = Router::new()
            .route("/order", post(order::<Db>))
            .layer(Extension(engine.clone()))
            .with_state(world.clone());
        Self {
            world,
            engine,
            router,
        }
    }

    /// Orders under this key: writes a row of this name and enqueues a message for each topic, and then does what `act`
    /// says. A topic is `name` or `name@order key`.
    pub(super) async fn order(&self, key: &str, topics: &str, act: &str) -> (u16, String) {
        let request = Request::post("/order")
            .header("idempotency-key", key)
            .header("x-topics", topics)
            .header("x-act", act)
            .body(Body::from(key.to_owned()))
            .expect("a request");
        let answered = self.router.clone().oneshot(request).await;
        let (head, body) = answered.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (
            head.status.as_u16(),
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    /// Orders, which succeeds; returns the message ids.
    pub(super) async fn ordered(&self, key: &str, topics: &str) -> Vec<String> {
        let mut answer = self.order(key, topics, "ok").await;
        for _ in 0..20 {
            // A server that was away, as any client treats it.
            if answer.0 != 503 {
                break;
            }
            answer = self.order(key, topics, "ok").await;
        }
        let (status, text) = answer;
        assert_eq!(status, 201, "{text}");
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// How many messages are in this state: 0 pending, 1 delivered, 2 dead.
    pub(super) async fn messages(&self, state: u8) -> i64 {
        let count = format!(
            "select count(*) from {}_outbox where state = {state}",
            self.world.records
        );
        let counted = Db::number(&self.world.pool, count).await;
        counted.expect("a count")
    }

    pub(super) async fn until_messages(&self, state: u8, count: i64) {
        for _ in 0..3_000 {
            if self.messages(state).await >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("fewer than {count} messages reached the state {state}");
    }

    /// Starts a relay of this process.
    pub(super) fn relay(&self, receiver: &Receiver) -> Relay {
        self.relay_with(quick(), receiver)
    }

    pub(super) fn relay_with(&self, builder: RelayBuilder, receiver: &Receiver) -> Relay {
        let receiver = receiver.clone();
        let deliver = move |delivery| {
            let receiver = receiver.clone();
            async move { receiver.receive(delivery).await }
        };
        builder.start(&self.engine, deliver).expect("a relay")
    }
}

/// Settings for a test: short pauses.
pub(super) fn quick() -> RelayBuilder {
    Relay::builder()
        .poll(Duration::from_millis(20))
        .backoff(Duration::from_millis(30), Duration::from_millis(200))
}

#[idempotent(transaction)]
async fn order<Db: TestDatabase>(
    State(world): State<World<Db>>,
    mut tx: Transaction<Db>,
    headers: HeaderMap,
    name: String,
) -> Response {
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    let insert = format!("insert into {} values ('{name}', 'x')", world.effects);
    Db::run(&mut tx, insert).await.expect("the row is written");
    let mut ids = Vec::new();
    for topic in header("x-topics").split_whitespace() {
        let message = match topic.split_once('@') {
            Some((topic, key)) => Message::bytes(topic, name.clone()).ordered_by(key),
            None => Message::bytes(topic, name.clone()),
        };
        let id = tx.enqueue_message(message).await.expect("enqueued");
        ids.push(id.to_string());
    }
    let ids = ids.join(" ");
    match header("x-act").as_str() {
        "ok" => {}
        "refuse" => return (StatusCode::PAYMENT_REQUIRED, ids).into_response(),
        "panic" => panic!("as the test asked"),
        "rollback-only" => tx.rollback_only(),
        "release" => return (StatusCode::TOO_MANY_REQUESTS, ids).into_response(),
        "limits" => return limits(&mut tx).await,
        "swallow" => {
            // The table is away; what the handler says of it does not count.
            let lost = tx.enqueue("mail", "lost").await;
            assert!(lost.is_err(), "{lost:?}");
        }
        act => panic!("{act}?"),
    }
    (StatusCode::CREATED, ids).into_response()
}

/// Tries what breaks a limit: nothing of it is enqueued, and the transaction goes on.
async fn limits<Db: TestDatabase>(tx: &mut Transaction<Db>) -> Response {
    let long = "x".repeat(129);
    let mut errors = Vec::new();
    for topic in ["", "line\nbreak", &long] {
        errors.push(tx.enqueue(topic, "x").await.expect_err("a bad topic"));
    }
    let large = Message::bytes("mail", vec![0; (1 << 20) + 1]);
    errors.push(tx.enqueue_message(large).await.expect_err("too large"));
    let unwritable = HashMap::from([(vec![1_u8], 1)]);
    errors.push(tx.enqueue("mail", &unwritable).await.expect_err("no JSON"));
    for _ in 0..256 {
        tx.enqueue("mail", "x").await.expect("enqueued");
    }
    errors.push(tx.enqueue("mail", "x").await.expect_err("too many"));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    (StatusCode::CREATED, errors.join("\n")).into_response()
}

/// What receives messages.
#[derive(Clone, Default)]
pub(super) struct Receiver(Arc<Received>);

struct Received {
    got: Mutex<Vec<Got>>,
    /// How often messages of a topic fail from now on; `usize::MAX` for always.
    failing: Mutex<HashMap<String, usize>>,
    /// Messages of the topic `gate` wait for a permit.
    gate: Semaphore,
}

/// A message as it came, also if its delivery failed then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) id: String,
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) attempt: u32,
    /// Whether its receiver had it when the delivery ended.
    pub(super) taken: bool,
}

impl Default for Received {
    fn default() -> Self {
        Self {
            got: Mutex::default(),
            failing: Mutex::default(),
            gate: Semaphore::new(0),
        }
    }
}

impl Receiver {
    async fn receive(&self, delivery: Delivery) -> Result<(), DeliveryError> {
        let topic = delivery.topic().to_owned();
        let fails = {
            let mut failing = self.0.failing.lock().expect("whole");
            let left = failing.get_mut(&topic).filter(|left| **left > 0);
            left.map(|left| *left -= 1).is_some()
        };
        self.0.got.lock().expect("whole").push(Got {
            id: delivery.id().to_string(),
            topic: topic.clone(),
            payload: String::from_utf8_lossy(delivery.payload()).into_owned(),
            attempt: delivery.attempt(),
            taken: !fails,
        });
        match topic.as_str() {
            "gate" => self.0.gate.acquire().await?.forget(),
            "poison" => return Err(DeliveryError::dead("nobody can read it")),
            "panics" if fails => panic!("as the test asked"),
            _ => {}
        }
        if fails {
            return Err("the receiver is away".into());
        }
        Ok(())
    }

    pub(super) fn fail(&self, topic: &str, times: usize) {
        let mut failing = self.0.failing.lock().expect("whole");
        failing.insert(topic.to_owned(), times);
    }

    pub(super) fn open(&self, messages: usize) {
        self.0.gate.add_permits(messages);
    }

    /// All that came, in its order.
    pub(super) fn got(&self) -> Vec<Got> {
        self.0.got.lock().expect("whole").clone()
    }

    /// The ids of the messages that were taken, in their order.
    pub(super) fn taken(&self) -> Vec<String> {
        let got = self.got().into_iter().filter(|got| got.taken);
        got.map(|got| got.id).collect()
    }

    pub(super) async fn until(&self, what: &str, enough: impl Fn(&[Got]) -> bool) {
        for _ in 0..3_000 {
            if enough(&self.got()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.got());
    }

    pub(super) async fn until_taken(&self, messages: usize) {
        let enough = |got: &[Got]| got.iter().filter(|got| got.taken).count() >= messages;
        self.until("messages that are taken", enough).await;
    }
}

/// Runs one statement on a connection of its own.
pub(super) async fn run<Db: TestDatabase>(world: &World<Db>, statement: String) {
    let mut connection = world.pool.acquire().await.expect("a connection");
    Db::run(&mut connection, statement).await.expect("it runs");
    // Keeps nothing of the table's shape.
    connection.ping().await.expect("a connection");
}
