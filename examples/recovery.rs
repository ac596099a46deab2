//! A process crashes during a charge, and the retry finds out what became of it.
//!
//! ```text
//! cargo run --example recovery          plays the scenarios and prints them
//! ```
//!
//! Between "the provider charged the card" and "the outcome is stored" a process can crash. `on_crash` decides what
//! the retry of such a request gets:
//!
//! | `on_crash` | the retry gets |
//! |---|---|
//! | `"refuse"`, the default | `outcome_unknown`, and never a second execution |
//! | `"retry"` | a second execution, for handlers that may safely run twice |
//! | `ask_the_provider`, a function | what the function finds out, as in this example |
//!
//! [`Execution::downstream_key`] connects the crashed process with the next one: it is derived from the record, so
//! every attempt has the same one. The handler sends it to the provider as the *provider's* idempotency key, and the
//! recovery function asks the provider about it. Both take the provider's client from the router's state, which `state = App`
//! gives to the recovery function.
//!
//! When `NotExecuted` is safe is said at [`ask_the_provider`]. Authentication is left out here: a service names the `caller`
//! of the route, as `payments.rs` does.

use std::{
    collections::{HashMap, hash_map::Entry},
    error::Error,
    fmt,
    future::pending,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{FromRef, State},
    http::{Request, Response, StatusCode},
    response::IntoResponse as _,
    routing::post,
};
use idempotent_runtime::{
    Crash, Execution, Idempotency, MemoryStore, ProblemCode, Recovery, Retention, idempotent,
};
use tokio::sync::Notify;
use tower::ServiceExt as _;

/// The router's state.
#[derive(Clone, Debug)]
struct App {
    provider: Provider,
    fate: Fate,
}

impl FromRef<App> for Provider {
    fn from_ref(app: &App) -> Self {
        app.provider.clone()
    }
}

impl FromRef<App> for Fate {
    fn from_ref(app: &App) -> Self {
        app.fate.clone()
    }
}

/// Charges a card. The body is the amount.
#[idempotent(required = true, state = App, on_crash = ask_the_provider)]
async fn charge(
    execution: Execution,
    State(provider): State<Provider>,
    State(fate): State<Fate>,
    amount: String,
) -> axum::response::Response {
    println!("    (attempt {})", execution.attempt());
    fate.crash_if(Moment::BeforeTheCharge).await;
    // The same key in every attempt: the provider charges once, however many attempts reach it.
    let key = execution.downstream_key("provider");
    if fate.crashes_at(Moment::ChargeOnItsWay) {
        provider.delay(&key, &amount);
    }
    fate.crash_if(Moment::ChargeOnItsWay).await;
    match provider.charge(&key, &amount) {
        Ok(()) => {
            fate.crash_if(Moment::AfterTheCharge).await;
            receipt(&amount).map(Body::from)
        }
        // The provider was certainly not reached, so nothing was charged. Stored, this response would be final; released,
        // the client may send the same request with the same key again. After a time-out that would not be certain.
        Err(Unreachable) => (Retention::Release, StatusCode::BAD_GATEWAY).into_response(),
    }
}

/// Finds out what became of an execution whose process crashed, by asking the provider.
///
/// It runs under the key's lease: of all retries in all processes, one at a time asks.
///
/// - "Charged" is certain.
/// - "Not charged" is only the state of this moment: the crashed process's charge may still be on its way, and arrive
///   after this question. `NotExecuted` lets the retry charge as well, so it is safe only if both are true:
///   1. The handler sends the downstream key with the charge. All attempts then send the same key.
///   2. The provider deduplicates by that key. Whichever charge arrives second then charges nothing.
///
///   If either is not true, the answer to "not charged" is `StillUnknown`: retries get `outcome_unknown` until the
///   provider shows the charge, an operator resolves the record, or it expires.
/// - "No answer" is `StillUnknown`: the next retry asks again.
async fn ask_the_provider(crash: Crash, State(provider): State<Provider>) -> Recovery {
    println!("    (what became of attempt {}?)", crash.attempt());
    match provider.find(&crash.downstream_key("provider")) {
        Ok(Some(amount)) => Recovery::Completed(receipt(&amount)),
        // Safe, because `charge` sends this key and `Provider::charge` deduplicates by it.
        Ok(None) => Recovery::NotExecuted,
        Err(Unreachable) => Recovery::StillUnknown,
    }
}

/// The response to a charge: the same from the handler and from the recovery function.
fn receipt(amount: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("charged {amount}")));
    *response.status_mut() = StatusCode::CREATED;
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The store stands for a database that all processes share, the provider for another company's service.
    let (store, provider) = (MemoryStore::new(), Provider::default());

    println!("a process crashes after the charge, before the outcome is stored");
    crash(&store, &provider, "key-1", Moment::AfterTheCharge).await?;
    let process = Process::new(&store, &provider, Fate::default())?;
    process.send("key-1", "201").await?;
    process.send("key-1", "201 replay").await?;

    println!("a process crashes before the charge");
    crash(&store, &provider, "key-2", Moment::BeforeTheCharge).await?;
    process.send("key-2", "201").await?;

    println!(
        "a process crashes while its charge is on its way, which arrives after the retry's charge"
    );
    crash(&store, &provider, "key-3", Moment::ChargeOnItsWay).await?;
    process.send("key-3", "201").await?;
    provider.deliver_delayed()?;

    println!("a process crashes after the charge, and the provider cannot be reached at first");
    crash(&store, &provider, "key-4", Moment::AfterTheCharge).await?;
    provider.set_unreachable(true);
    process.send("key-4", "409 outcome_unknown").await?;
    provider.set_unreachable(false);
    process.send("key-4", "201").await?;

    println!(
        "no process crashes, but the provider cannot be reached: nothing is charged, the key is released"
    );
    provider.set_unreachable(true);
    process.send("key-5", "502").await?;
    provider.set_unreachable(false);
    process.send("key-5", "201").await?;

    let charges = provider.charges();
    println!("five keys, {charges} charges");
    if charges == 5 {
        Ok(())
    } else {
        Err("expected one charge for each key".into())
    }
}

/// Sends a request to a process that crashes while it executes it.
async fn crash(
    store: &MemoryStore,
    provider: &Provider,
    key: &str,
    moment: Moment,
) -> Result<(), Box<dyn Error>> {
    let fate = Fate::crash_at(moment);
    let process = Process::new(store, provider, fate.clone())?;
    let app = process.app.clone();
    let client = tokio::spawn(app.oneshot(request(key)?));
    fate.crashed.notified().await;
    client.abort();
    // A deploy that does not wait: executions in flight are marked as unknown. After a power failure the lease has to
    // lapse first; then everything goes on as here.
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
            .layer(Extension(idempotency.clone()))
            .with_state(App {
                provider: provider.clone(),
                fate,
            });
        Ok(Self { app, idempotency })
    }

    /// Sends a request, prints its answer in short form, and fails if it is not the expected one.
    async fn send(&self, key: &str, expected: &str) -> Result<(), Box<dyn Error>> {
        let response = self.app.clone().oneshot(request(key)?).await?;
        let mut answer = response.status().as_str().to_owned();
        if response.headers().contains_key("idempotent-replay") {
            answer += " replay";
        }
        // The engine's own answers carry their code as an extension, for example for a logging layer.
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

/// The payment provider, which remembers each charge by its idempotency key.
#[derive(Clone, Debug, Default)]
struct Provider(Arc<Account>);

#[derive(Debug, Default)]
struct Account {
    charges: Mutex<HashMap<String, String>>,
    /// Requests that have not arrived yet: keys and amounts.
    on_their_way: Mutex<Vec<(String, String)>>,
    unreachable: AtomicBool,
}

/// The provider cannot be reached.
#[derive(Debug)]
struct Unreachable;

impl Error for Unreachable {}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the provider cannot be reached")
    }
}

impl Provider {
    /// Charges once per key. A second request with a key gets the first one's charge.
    fn charge(&self, key: &str, amount: &str) -> Result<(), Unreachable> {
        self.reach()?;
        match lock(&self.0.charges).entry(key.to_owned()) {
            Entry::Occupied(_) => {
                println!("    (the provider knows this key, and charges nothing)");
            }
            Entry::Vacant(charge) => {
                charge.insert(amount.to_owned());
                println!("    (the provider charges {amount})");
            }
        }
        Ok(())
    }

    /// The amount that was charged under this key.
    fn find(&self, key: &str) -> Result<Option<String>, Unreachable> {
        self.reach()?;
        Ok(lock(&self.0.charges).get(key).cloned())
    }

    /// A request to charge that the network delays.
    fn delay(&self, key: &str, amount: &str) {
        lock(&self.0.on_their_way).push((key.to_owned(), amount.to_owned()));
    }

    /// The delayed requests arrive.
    fn deliver_delayed(&self) -> Result<(), Unreachable> {
        let delayed = mem::take(&mut *lock(&self.0.on_their_way));
        for (key, amount) in delayed {
            self.charge(&key, &amount)?;
        }
        Ok(())
    }

    /// How many charges were made.
    fn charges(&self) -> usize {
        lock(&self.0.charges).len()
    }

    fn reach(&self) -> Result<(), Unreachable> {
        if self.0.unreachable.load(Ordering::Relaxed) {
            Err(Unreachable)
        } else {
            Ok(())
        }
    }

    fn set_unreachable(&self, unreachable: bool) {
        self.0.unreachable.store(unreachable, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When, if ever, a process crashes.
#[derive(Clone, Debug, Default)]
struct Fate {
    crashes: Option<Moment>,
    crashed: Arc<Notify>,
}

/// A moment of the handler's execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BeforeTheCharge,
    ChargeOnItsWay,
    AfterTheCharge,
}

impl Fate {
    fn crash_at(moment: Moment) -> Self {
        Self {
            crashes: Some(moment),
            ..Self::default()
        }
    }

    fn crashes_at(&self, moment: Moment) -> bool {
        self.crashes == Some(moment)
    }

    /// Simulates the crash, if it is to happen now: nothing that follows happens.
    async fn crash_if(&self, moment: Moment) {
        if self.crashes_at(moment) {
            self.crashed.notify_one();
            pending::<()>().await;
        }
    }
}
