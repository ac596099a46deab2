//! A checkout: one reservation, one charge, one order and one mail, whatever clients, processes and providers do.
//!
//! ```text
//! cargo run -p idempotent-examples --example checkout     the shop, in the SQLite file checkout.db
//!
//! curl -i localhost:8000/api/checkouts -H 'Idempotency-Key: 1' -H 'Content-Type: application/json' \
//!     -d '{"item":"book","amount":20,"mail":"ann@example.com"}'
//! ```
//!
//! The payment provider and the mail server are fakes in the same process; with `checkout outside` they run in a process of
//! their own, whose address the shop takes from `OUTSIDE`. They can be told what to do next:
//!
//! ```text
//! curl localhost:8000/outside/trouble -H 'Content-Type: application/json' -d '{"charges":["fail","lose","hang"]}'
//! ```
//!
//! # The guarantee
//!
//! | part | how it happens once |
//! |---|---|
//! | reservation | a step, whose key is the reservation's primary key |
//! | charge | a step, whose key the provider honours: asked twice, it charges once |
//! | order | a step that calls a route with `transaction` under the step's key: the order commits with that record |
//! | mail | a message in the outbox of that transaction, delivered with its id until the mail server takes it; the server knows the ids |
//!
//! A crash leaves the steps that were done, and the client's retry goes on from there. Nothing is undone by itself but the
//! reservation of a declined card.
//!
//! | request | answer |
//! |---|---|
//! | `POST /api/checkouts` | 201; 409 `sold_out` and 402 `declined` (an amount above 1,000), which are outcomes too |
//! | `GET /api/books` | stock, reservations and orders |
//! | `GET /outside/books` | charges and mails |
//!
//! The request header `x-crash: reserve` (`charge`, `confirm`) ends the process after that step. `PORT`, `LEASE`, `TTL` come
//! from the environment, as in the payments demo; `DATABASE_URL` names another SQLite file.

use std::{error::Error, process::ExitCode, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Request, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use idempotent_runtime::{
    Execution, Idempotency, Retention, Step, StepError, Transaction, idempotent,
    outbox::{Delivery, DeliveryError, Relay},
    store::{self, purger::Purger},
};
use serde::{Deserialize, Serialize};
use sqlx::Sqlite;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use self::{
    outside::{Declined, Mail, Services},
    settings::Settings,
    shop::{Books, Shop, SoldOut},
};

#[path = "checkout/outside.rs"]
mod outside;
#[path = "payments/settings.rs"]
#[allow(dead_code, reason = "the payments demo has more of them")]
mod settings;
#[path = "checkout/shop.rs"]
mod shop;

/// Where the shop is unless `DATABASE_URL` says otherwise.
const FILE: &str = "sqlite://checkout.db";

/// How long a shutdown waits for executions and deliveries.
const DRAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Checkout {
    item: String,
    amount: u64,
    mail: String,
}

/// What is paid and reserved.
#[derive(Debug, Deserialize, Serialize)]
struct Order {
    reservation: String,
    charge: String,
    mail: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Ordered {
    order: i64,
    charge: String,
}

/// What the handlers use.
#[derive(Clone)]
struct App {
    shop: Shop,
    services: Services,
    /// The route of [`confirm`], which has no other callers.
    orders: Router,
}

/// Buys something. Each step runs once, or again under the same key where it was cut off half-way.
#[idempotent(required, on_crash = "retry")]
async fn checkout(
    State(app): State<App>,
    execution: Execution,
    headers: HeaderMap,
    Json(checkout): Json<Checkout>,
) -> Result<Response, StepError<Failure>> {
    let crash = Crash(headers.get("x-crash").and_then(|step| step.to_str().ok()));
    let App {
        shop,
        services,
        orders,
    } = &app;
    let (item, amount) = (&checkout.item, checkout.amount);

    // A refusal is an outcome, within `Ok`; an `Err` means that nobody knows, and the step runs again.
    let reserve = async |step: Step| shop.reserve(&step.downstream_key(), item).await;
    let reserved: Result<String, SoldOut> = execution.step("reserve", reserve).await?;
    let Ok(reservation) = &reserved else {
        return Ok(refused(StatusCode::CONFLICT, "sold_out"));
    };
    crash.after("reserve");

    let charge = async |step: Step| services.charge(&step.downstream_key(), amount).await;
    let charged: Result<String, Declined> = execution.step("charge", charge).await?;
    crash.after("charge");
    let Ok(charge) = charged else {
        let give_back = async || shop.give_back(reservation).await;
        execution.step("give back", give_back).await?;
        return Ok(refused(StatusCode::PAYMENT_REQUIRED, "declined"));
    };

    let order = Order {
        reservation: reservation.clone(),
        charge,
        mail: checkout.mail.clone(),
    };
    let confirm = async |step: Step| confirmed(orders, &step.downstream_key(), &order).await;
    let ordered: Ordered = execution.step("confirm", confirm).await?;
    crash.after("confirm");
    Ok((StatusCode::CREATED, Json(ordered)).into_response())
}

/// The order and its mail: both are committed with the record of this request, or neither.
#[idempotent(required, transaction)]
async fn confirm(
    mut tx: Transaction<Sqlite>,
    Json(order): Json<Order>,
) -> Result<(StatusCode, Json<Ordered>), RolledBack> {
    let id = shop::insert_order(&mut tx, &order.reservation, &order.charge).await?;
    let mail = Mail {
        to: order.mail,
        text: format!("order {id} is paid by {}", order.charge),
    };
    tx.enqueue("mail", &mail).await?;
    let ordered = Ordered {
        order: id,
        charge: order.charge,
    };
    Ok((StatusCode::CREATED, Json(ordered)))
}

/// Calls [`confirm`] as a client would: with a key.
async fn confirmed(orders: &Router, key: &str, order: &Order) -> Result<Ordered, Failure> {
    let request = Request::post("/orders")
        .header("idempotency-key", key)
        .header("content-type", "application/json")
        .body(Body::from(serde_json::to_vec(order)?))?;
    let response = orders.clone().oneshot(request).await?;
    let status = response.status();
    if status != StatusCode::CREATED {
        return Err(format!("the order was answered with {status}").into());
    }
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await?;
    Ok(serde_json::from_slice(&body)?)
}

/// Sends a mail of the outbox. By `?`, every error is tried again later.
async fn deliver(services: Services, delivery: Delivery) -> Result<(), DeliveryError> {
    // What is no mail never becomes one.
    let mail: Mail = delivery.json().map_err(DeliveryError::dead)?;
    services.send(delivery.id().as_str(), &mail).await?;
    Ok(())
}

async fn books(State(app): State<App>) -> Result<Json<Books>, Failure> {
    Ok(Json(app.shop.books().await?))
}

/// Ends the process after this step, as the request asks.
struct Crash<'a>(Option<&'a str>);

impl Crash<'_> {
    fn after(&self, step: &str) {
        if self.0 == Some(step) {
            std::process::abort();
        }
    }
}

fn refused(status: StatusCode, error: &'static str) -> Response {
    (status, Json(ErrorBody { error })).into_response()
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    error: &'static str,
}

/// Nobody knows whether it happened: the answer is not stored, and the client's retry goes on.
#[derive(Debug)]
struct Failure(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        tracing::warn!(error = &*self.0 as &dyn Error, "a step failed");
        refused(StatusCode::BAD_GATEWAY, "try_again")
    }
}

/// Nothing of the order was committed, so its key is free: the next attempt executes.
#[derive(Debug)]
struct RolledBack(Failure);

impl<E: Into<Failure>> From<E> for RolledBack {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for RolledBack {
    fn into_response(self) -> Response {
        (Retention::Release, self.0).into_response()
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    let outside_only = std::env::args()
        .nth(1)
        .is_some_and(|role| role == "outside");
    let started = if outside_only {
        serve_outside().await
    } else {
        Box::pin(serve()).await
    };
    match started {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("checkout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Provider and mail server alone.
async fn serve_outside() -> Result<(), Box<dyn Error>> {
    let port = Settings::from_env()?.port;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let app = Router::new()
        .nest("/outside", outside::router())
        .route("/health", get(async || "ok\n"));
    axum::serve(listener, app)
        .with_graceful_shutdown(signal())
        .await?;
    Ok(())
}

async fn serve() -> Result<(), Box<dyn Error>> {
    let settings = Settings::from_env()?;
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| FILE.into());
    // Records and outbox are in the same file as the orders.
    let store = store::migrate(&url).await?;
    let purger = Purger::builder().start(store.clone());
    let idempotency = Idempotency::builder()
        .store(store)
        .policy(settings.policy)
        .install()?;
    let listener = TcpListener::bind(("127.0.0.1", settings.port)).await?;
    let here = format!("http://{}", listener.local_addr()?);
    let services = Services::at(&std::env::var("OUTSIDE").unwrap_or_else(|_| here.clone()))?;
    let relay = {
        let services = services.clone();
        // The pauses of a demo; the defaults suit a service.
        let builder = Relay::builder().backoff(Duration::from_millis(200), Duration::from_secs(5));
        builder.start(&idempotency, move |delivery| {
            deliver(services.clone(), delivery)
        })?
    };
    let app = App {
        shop: Shop::open(&url).await?,
        services,
        orders: Router::new().route("/orders", post(confirm)),
    };
    let app = Router::new()
        .route("/api/checkouts", post(checkout))
        .route("/api/books", get(books))
        .route("/health", get(async || "ok\n"))
        .with_state(app)
        .nest("/outside", outside::router());
    println!("listening on {here}");
    axum::serve(listener, app)
        .with_graceful_shutdown(signal())
        .await?;
    idempotency.shutdown(DRAIN).await;
    relay.stop(DRAIN).await;
    purger.stop().await;
    Ok(())
}

/// Waits for Ctrl-C or, on Unix, SIGTERM.
async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = tokio::signal::ctrl_c() => return,
            }
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
