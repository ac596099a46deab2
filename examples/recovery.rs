//! A crash in the middle of a charge, and how the retry finds out what became of it.
//!
//! ```text
//! cargo run --example recovery          plays the story and prints it
//! ```
//!
//! Between "the provider charged the card" and "the outcome is stored" a process can die. What the retry of
//! such a request gets is the route's choice:
//!
//! | `on_crash` | the retry gets |
//! |---|---|
//! | `"refuse"`, the default | `outcome_unknown`, and never a second execution |
//! | `"retry"` | a second execution, where doing it twice does no harm |
//! | `find_out`, a function | what the function finds out, as in this example |
//!
//! What leads from the dead process to the living one is [`Execution::downstream_key`]. It is derived from the
//! record, so both know it without having met. The first passes it to the provider as *its* idempotency key,
//! the second asks the provider about it.

use std::{
    collections::HashMap,
    error::Error,
    future::pending,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    http::{Request, Response, StatusCode},
    response::IntoResponse as _,
    routing::post,
};
use idempotent_runtime::{
    Crash, Execution, Idempotency, MemoryStore, ProblemCode, Recovery, Retention, idempotent,
};
use tokio::sync::Notify;
use tower::ServiceExt as _;

/// Charges a card, the amount being the body.
#[idempotent(required = true, on_crash = find_out)]
async fn charge(
    execution: Execution,
    Extension(provider): Extension<Provider>,
    Extension(fate): Extension<Fate>,
    amount: String,
) -> axum::response::Response {
    println!("    (attempt {})", execution.attempt());
    fate.strikes(When::BeforeTheCharge).await;
    match provider.charge(&execution.downstream_key("provider"), &amount) {
        Ok(()) => {
            fate.strikes(When::AfterTheCharge).await;
            receipt(&amount).map(Body::from)
        }
        // Nothing was charged, for certain. Stored, this answer would be final; released, the client may send
        // the same request with the same key again. A time-out would be no such case.
        Err(Unreachable) => (Retention::Release, StatusCode::BAD_GATEWAY).into_response(),
    }
}

/// What became of an execution that vanished? Its own provider knows.
///
/// It runs under the key's lease: of all retries in all processes, one at a time asks.
async fn find_out(crash: Crash) -> Recovery {
    println!("    (what became of attempt {}?)", crash.attempt());
    let Some(provider) = crash.request().extensions().get::<Provider>() else {
        return Recovery::StillUnknown;
    };
    match provider.find(&crash.downstream_key("provider")) {
        Ok(Some(amount)) => Recovery::Completed(receipt(&amount)),
        Ok(None) => Recovery::NotExecuted,
        Err(Unreachable) => Recovery::StillUnknown,
    }
}

/// The one answer to a charge, whoever gives it.
fn receipt(amount: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("charged {amount}")));
    *response.status_mut() = StatusCode::CREATED;
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Stands for the database that all processes share, and for the provider that is there for all of them.
    let (store, provider) = (MemoryStore::new(), Provider::default());

    println!("a process dies after the charge, before the answer");
    crash(&store, &provider, "key-1", When::AfterTheCharge).await?;
    let process = Process::new(&store, &provider, Fate::default())?;
    process.send("key-1", "201").await?;
    process.send("key-1", "201 replay").await?;

    println!("a process dies before the charge");
    crash(&store, &provider, "key-2", When::BeforeTheCharge).await?;
    process.send("key-2", "201").await?;

    println!("a process dies after the charge, and the provider cannot be asked at first");
    crash(&store, &provider, "key-3", When::AfterTheCharge).await?;
    provider.away(true);
    process.send("key-3", "409 outcome_unknown").await?;
    provider.away(false);
    process.send("key-3", "201").await?;

    println!("nobody dies, but the provider is away: nothing is charged, the key is released");
    provider.away(true);
    process.send("key-4", "502").await?;
    provider.away(false);
    process.send("key-4", "201").await?;
    println!("four keys, {} charges", provider.charges());
    Ok(())
}

/// Sends a request to a process that dies over it.
async fn crash(
    store: &MemoryStore,
    provider: &Provider,
    key: &str,
    when: When,
) -> Result<(), Box<dyn Error>> {
    let fate = Fate::new(when);
    let process = Process::new(store, provider, fate.clone())?;
    let app = process.app.clone();
    let client = tokio::spawn(app.oneshot(request(key)?));
    fate.struck.notified().await;
    client.abort();
    // A deploy that does not wait: what still runs is marked as unknown. After a power failure the lease would
    // have to lapse first, and then all would go on as here.
    let report = process.idempotency.shutdown(Duration::ZERO).await;
    println!("    (the process ends, {} unknown)", report.unknown);
    Ok(())
}

/// One process of the service.
struct Process {
    app: Router,
    idempotency: Idempotency,
}

impl Process {
    fn new(store: &MemoryStore, provider: &Provider, fate: Fate) -> Result<Self, Box<dyn Error>> {
        let idempotency = Idempotency::builder().store(store.clone()).build()?;
        let app = Router::new()
            .route("/charges", post(charge))
            .layer(Extension(provider.clone()))
            .layer(Extension(fate))
            .layer(Extension(idempotency.clone()));
        Ok(Self { app, idempotency })
    }

    /// Sends a request and prints its answer in short, unless it is not the one of the story.
    async fn send(&self, key: &str, expected: &str) -> Result<(), Box<dyn Error>> {
        let response = self.app.clone().oneshot(request(key)?).await?;
        let mut answer = response.status().as_str().to_owned();
        if response.headers().contains_key("idempotent-replay") {
            answer += " replay";
        }
        // Answers of the engine itself carry their code, for layers such as one that logs.
        if let Some(code) = response.extensions().get::<ProblemCode>() {
            answer = format!("{answer} {code}");
        }
        println!("    {answer}");
        if answer == expected {
            Ok(())
        } else {
            Err(format!("expected {expected}").into())
        }
    }
}

fn request(key: &str) -> Result<Request<Body>, axum::http::Error> {
    Request::post("/charges")
        .header("idempotency-key", key)
        .body(Body::from("100"))
}

/// The payment provider: another company, which remembers charges by the key they came with.
#[derive(Clone, Debug, Default)]
struct Provider(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    charges: Mutex<HashMap<String, String>>,
    away: AtomicBool,
}

/// The provider does not answer the telephone.
#[derive(Debug)]
struct Unreachable;

impl Provider {
    /// Charges, once per key.
    fn charge(&self, key: &str, amount: &str) -> Result<(), Unreachable> {
        self.reach()?;
        println!("    (the provider charges {amount})");
        let mut charges = self
            .0
            .charges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        charges
            .entry(key.to_owned())
            .or_insert_with(|| amount.to_owned());
        Ok(())
    }

    /// What was charged under this key.
    fn find(&self, key: &str) -> Result<Option<String>, Unreachable> {
        self.reach()?;
        let charges = self
            .0
            .charges
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(charges.get(key).cloned())
    }

    /// How many.
    fn charges(&self) -> usize {
        let charges = self.0.charges.lock();
        charges.unwrap_or_else(PoisonError::into_inner).len()
    }

    fn reach(&self) -> Result<(), Unreachable> {
        if self.0.away.load(Ordering::Relaxed) {
            Err(Unreachable)
        } else {
            Ok(())
        }
    }

    fn away(&self, away: bool) {
        self.0.away.store(away, Ordering::Relaxed);
    }
}

/// What this process has before it.
#[derive(Clone, Debug, Default)]
struct Fate {
    dies: Option<When>,
    struck: Arc<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    BeforeTheCharge,
    AfterTheCharge,
}

impl Fate {
    fn new(when: When) -> Self {
        Self {
            dies: Some(when),
            ..Self::default()
        }
    }

    /// If the process dies now, nothing that follows happens.
    async fn strikes(&self, now: When) {
        if self.dies == Some(now) {
            self.struck.notify_one();
            pending::<()>().await;
        }
    }
}
