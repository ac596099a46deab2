//! The service that the clients in this folder call: payments in the form of Stripe's API, and faults on command.
//!
//! ```text
//! cargo run -p idempotent-tests --bin clients-server      prints the ports as `SERVICE CONTROL GRPC`
//! POST CONTROL/control/PROFILE/CASE                       a new engine of that profile, and the fault
//! GET  CONTROL/counts                                     `REQUESTS EXECUTIONS` since then
//! ```
//!
//! | case | what happens to `POST /v1/…` |
//! |---|---|
//! | `plain` | it answers at once |
//! | `cut` | the first connection is closed after the effect, without an answer |
//! | `slow` | it takes 2.5 seconds |
//! | `500`, `503` | it has its effect, and answers with that status |
//! | `panic` | it has its effect, and panics |
//! | `unknown` | it has its effect and does not end; its process is shut down, and another serves the retries |
//! | `not-stored` | as `cut`, and the response is too large to be stored |
//! | `conflict` | it does not end, and duplicates wait for 0.2 seconds only |
//! | `full` | the store has no room |
//! | `small` | a body of more than 64 bytes is too large |
//!
//! In gRPC there are `plain`, `cut`, `503`, `panic` and `conflict`.
//!
//! It listens on 127.0.0.1 only, and ends with its standard input.

use std::{
    future::{Future, pending},
    io::Read,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use idempotent_runtime::{Builder, Idempotency, MemoryStore, Policy, Profile, idempotent};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

mod grpc;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the current case consists of.
struct Case {
    name: String,
    engine: Idempotency,
    /// The engine of the process that takes over, in the case `unknown`.
    next: Idempotency,
    /// Ends executions that would not end, when the next case begins.
    end: watch::Sender<bool>,
}

struct Service {
    case: Mutex<Case>,
    requests: AtomicUsize,
    executions: AtomicUsize,
    /// How many answers are still to be cut off.
    cuts: AtomicUsize,
}

type Shared = Arc<Service>;

impl Case {
    fn new(profile: Profile, name: &str) -> Option<Self> {
        let policy = Policy::new();
        let (policy, records) = match name {
            "not-stored" => (policy.max_response(4), None),
            "conflict" => (
                policy
                    .wait_timeout(Duration::from_millis(200))
                    .lease(Duration::from_secs(1)),
                None,
            ),
            "small" => (policy.max_body(64), None),
            "full" => (policy, Some(0)),
            "plain" | "cut" | "slow" | "500" | "503" | "panic" | "unknown" => (policy, None),
            _ => return None,
        };
        let store = match records {
            Some(records) => MemoryStore::builder().max_records(records).build(),
            None => MemoryStore::new(),
        };
        let engine = || {
            let builder: Builder = Idempotency::builder().profile(profile);
            let builder = builder.policy(policy.clone()).store(store.clone());
            builder.build().expect("the settings are valid")
        };
        Some(Self {
            name: name.to_owned(),
            engine: engine(),
            next: engine(),
            end: watch::Sender::new(false),
        })
    }
}

impl Service {
    fn case(&self) -> std::sync::MutexGuard<'_, Case> {
        self.case.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    // The panics of the case `panic` are meant: their text would look like a failure.
    std::panic::set_hook(Box::new(|_| {}));
    let case = Case::new(Profile::Default, "plain").expect("a case");
    let service = Arc::new(Service {
        case: Mutex::new(case),
        requests: AtomicUsize::new(0),
        executions: AtomicUsize::new(0),
        cuts: AtomicUsize::new(0),
    });
    let app = Router::new()
        .route("/v1/{*resource}", post(pay))
        .route_layer(from_fn_with_state(Arc::clone(&service), enter))
        .route("/control/{profile}/{case}", post(control))
        .route("/counts", get(counts))
        .with_state(Arc::clone(&service));

    let inner = TcpListener::bind("127.0.0.1:0").await?;
    let outer = TcpListener::bind("127.0.0.1:0").await?;
    let inner_grpc = TcpListener::bind("127.0.0.1:0").await?;
    let outer_grpc = TcpListener::bind("127.0.0.1:0").await?;
    let (control, grpc) = (inner.local_addr()?, inner_grpc.local_addr()?);
    println!(
        "{} {} {}",
        outer.local_addr()?.port(),
        control.port(),
        outer_grpc.local_addr()?.port()
    );
    thread::spawn(|| {
        let _ended = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    tokio::spawn(async move { axum::serve(inner, app).await });
    tokio::spawn(grpc::serve(inner_grpc, Arc::clone(&service)));
    tokio::try_join!(
        relay(outer, control, &service),
        relay(outer_grpc, grpc, &service)
    )?;
    Ok(())
}

/// Passes connections on.
async fn relay(from: TcpListener, to: SocketAddr, service: &Shared) -> std::io::Result<()> {
    loop {
        let (client, _) = from.accept().await?;
        tokio::spawn(pass(client, to, Arc::clone(service)));
    }
}

/// Passes a connection on to the service, unless an answer is to be cut off.
async fn pass(client: TcpStream, service: SocketAddr, state: Shared) -> std::io::Result<()> {
    let server = TcpStream::connect(service).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let sending = async {
        copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let answering = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return Ok::<(), std::io::Error>(());
            }
            // What HTTP/2 says before that is no answer.
            let executed = state.executions.load(SeqCst) > 0;
            let cut = state.cuts.fetch_update(SeqCst, SeqCst, |left| {
                left.checked_sub(1).filter(|_| executed)
            });
            if cut.is_ok() {
                return Ok(());
            }
            to_client.write_all(&buffer[..read]).await?;
        }
    };
    // Whichever ends first closes both connections.
    tokio::select! { ended = sending => ended, ended = answering => ended }
}

/// Counts a request, and gives it the engine of the case.
async fn enter(State(service): State<Shared>, mut request: Request, next: Next) -> Response {
    service.requests.fetch_add(1, SeqCst);
    let engine = service.case().engine.clone();
    request.extensions_mut().insert(engine);
    next.run(request).await
}

#[idempotent]
async fn pay(State(service): State<Shared>, body: String) -> Response {
    let (case, mut end) = {
        let case = service.case();
        (case.name.clone(), case.end.subscribe())
    };
    if case == "slow" {
        sleep(Duration::from_millis(2500)).await;
    }
    let payment = service.executions.fetch_add(1, SeqCst) + 1;
    let status = match case.as_str() {
        "500" => StatusCode::INTERNAL_SERVER_ERROR,
        "503" => StatusCode::SERVICE_UNAVAILABLE,
        "panic" => panic!("as the case says"),
        "unknown" => {
            tokio::spawn(crash(service));
            pending().await
        }
        "conflict" => {
            let _next_case = end.wait_for(|end| *end).await;
            StatusCode::OK
        }
        _ => StatusCode::OK,
    };
    let body = if status == StatusCode::OK {
        let amount = body
            .split(|c: char| !c.is_ascii_digit())
            .find(|part| !part.is_empty());
        let amount = amount.unwrap_or("0");
        format!(r#"{{"id":"pi_{payment}","object":"payment_intent","amount":{amount}}}"#)
    } else {
        r#"{"error":{"type":"api_error","message":"the bank does not answer"}}"#.to_owned()
    };
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

/// Ends the process that executes, as far as its engine is concerned: another one serves from now on.
async fn crash(service: Shared) {
    let (crashed, next) = {
        let case = service.case();
        (case.engine.clone(), case.next.clone())
    };
    crashed.shutdown(Duration::ZERO).await;
    service.case().engine = next;
}

async fn control(
    State(service): State<Shared>,
    Path((profile, name)): Path<(String, String)>,
) -> StatusCode {
    let profile = match profile.as_str() {
        "default" => Profile::Default,
        "ietf" => Profile::Ietf,
        "stripe" => Profile::Stripe,
        _ => return StatusCode::NOT_FOUND,
    };
    let Some(case) = Case::new(profile, &name) else {
        return StatusCode::NOT_FOUND;
    };
    let cuts = usize::from(matches!(name.as_str(), "cut" | "not-stored"));
    let mut current = service.case();
    current.end.send_replace(true);
    *current = case;
    service.requests.store(0, SeqCst);
    service.executions.store(0, SeqCst);
    service.cuts.store(cuts, SeqCst);
    StatusCode::NO_CONTENT
}

async fn counts(State(service): State<Shared>) -> String {
    let (requests, executions) = (&service.requests, &service.executions);
    format!("{} {}", requests.load(SeqCst), executions.load(SeqCst))
}
