//! The handlers, each with its attribute.
//!
//! Each names its `caller`: who sends a key is authenticated before anything else, replays included, and the same key of
//! another account is another key. Each takes it as an argument too, which authenticates the requests without a key.
//!
//! None sets the ttl, the lease or `on_crash`: these come from the engine's default policy, which the environment sets.
//! A route sets only the options in which it differs.

use std::{io, iter};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{FromRef, Path, Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use futures_util::stream;
use idempotent_runtime::idempotent;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    accounts::{Account, Revoked, revoke},
    effects::{Counts, Effects, Kind},
    knobs::{Delay, Panic},
};

/// The longest report, in bytes.
const LONGEST_REPORT: u32 = 64 * 1024 * 1024;

/// A streamed report is sent in pages of about this many bytes.
const PAGE: usize = 16 * 1024;

/// The router's state.
#[derive(Clone)]
struct Demo {
    effects: Effects,
    revoked: Revoked,
}

impl FromRef<Demo> for Effects {
    fn from_ref(demo: &Demo) -> Self {
        demo.effects.clone()
    }
}

impl FromRef<Demo> for Revoked {
    fn from_ref(demo: &Demo) -> Self {
        demo.revoked.clone()
    }
}

/// All routes but the metrics. The attributes use the installed engine.
pub(crate) fn app(effects: Effects) -> Router {
    Router::new()
        .route("/api/payments", post(create_payment))
        .route("/api/orders", post(create_order))
        .route(
            "/api/orders/{id}",
            put(replace_order).patch(change_order).delete(delete_order),
        )
        .route("/api/reports", post(create_report))
        .route("/api/tokens/{token}", delete(revoke))
        .route("/api/effects", get(counts))
        .route("/health", get(async || "ok\n"))
        .with_state(Demo {
            effects,
            revoked: Revoked::default(),
        })
}

#[derive(Debug, Deserialize)]
struct NewPayment {
    amount: u64,
}

#[derive(Debug, Serialize)]
struct Payment {
    status: &'static str,
    id: String,
    amount: u64,
}

/// Duplicates wait for the first request's response.
#[idempotent(caller = Account, wait = true)]
async fn create_payment(
    State(effects): State<Effects>,
    _: Account,
    delay: Delay,
    panic: Panic,
    Json(NewPayment { amount }): Json<NewPayment>,
) -> Result<(StatusCode, Json<Payment>), Failure> {
    delay.sleep().await;
    let id = effects.draw(Kind::Payment);
    effects.record(Kind::Payment, &amount.to_string(), &id)?;
    panic.panic_if_asked();
    let status = "success";
    Ok((StatusCode::CREATED, Json(Payment { status, id, amount })))
}

#[derive(Debug, Deserialize)]
struct NewOrder {
    item: String,
    quantity: u64,
}

#[derive(Debug, Serialize)]
struct Order {
    status: &'static str,
    id: String,
    item: String,
    quantity: u64,
}

/// Duplicates get a conflict while the first request is in flight. A refused order is an outcome like any other: its
/// retry replays the refusal, and a corrected order needs a new key.
#[idempotent(caller = Account, wait = false)]
async fn create_order(
    State(effects): State<Effects>,
    _: Account,
    delay: Delay,
    Json(NewOrder { item, quantity }): Json<NewOrder>,
) -> Result<(StatusCode, Json<Order>), Failure> {
    delay.sleep().await;
    let id = effects.draw(Kind::Order);
    if quantity == 0 {
        return Err(Failure::Refused("quantity must be at least 1"));
    }
    effects.record(Kind::Order, &quantity.to_string(), &id)?;
    let status = "success";
    let order = Order {
        status,
        id,
        item,
        quantity,
    };
    Ok((StatusCode::CREATED, Json(order)))
}

/// A change of an order.
#[derive(Debug, Default, Deserialize, Serialize)]
struct OrderChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<u64>,
}

/// The response to a change of an order. The demo stores no orders: any id is accepted.
#[derive(Debug, Serialize)]
struct Changed {
    status: &'static str,
    /// The order's id.
    id: String,
    /// The change's id, a new one for each execution.
    change: String,
    #[serde(flatten)]
    order: OrderChange,
}

#[idempotent(caller = Account, wait = false)]
async fn replace_order(
    State(effects): State<Effects>,
    _: Account,
    Path(id): Path<String>,
    delay: Delay,
    Json(NewOrder { item, quantity }): Json<NewOrder>,
) -> Result<Json<Changed>, Failure> {
    let (item, quantity) = (Some(item), Some(quantity));
    changed(&effects, "put", id, delay, OrderChange { item, quantity }).await
}

#[idempotent(caller = Account, wait = false)]
async fn change_order(
    State(effects): State<Effects>,
    _: Account,
    Path(id): Path<String>,
    delay: Delay,
    Json(order): Json<OrderChange>,
) -> Result<Json<Changed>, Failure> {
    changed(&effects, "patch", id, delay, order).await
}

#[idempotent(caller = Account, wait = false)]
async fn delete_order(
    State(effects): State<Effects>,
    _: Account,
    Path(id): Path<String>,
    delay: Delay,
) -> Result<Json<Changed>, Failure> {
    changed(&effects, "delete", id, delay, OrderChange::default()).await
}

async fn changed(
    effects: &Effects,
    method: &str,
    id: String,
    delay: Delay,
    order: OrderChange,
) -> Result<Json<Changed>, Failure> {
    delay.sleep().await;
    let change = effects.draw(Kind::Order);
    // The ledger has the change's id, not the order's: an id that a client chose may be more than one word.
    effects.record(Kind::Order, method, &change)?;
    let status = "success";
    Ok(Json(Changed {
        status,
        id,
        change,
        order,
    }))
}

/// The report's parameters: `?bytes=N`, and `stream=1` for a response of unknown length.
#[derive(Debug, Deserialize)]
struct ReportQuery {
    #[serde(default = "default_length", deserialize_with = "bounded")]
    bytes: u32,
    #[serde(default)]
    stream: u8,
}

/// A report larger than `max_response` (1 MiB by default) leaves a tombstone: its retry gets `response_not_stored`, and
/// does not execute.
#[idempotent(caller = Account, required = true)]
async fn create_report(
    State(effects): State<Effects>,
    _: Account,
    delay: Delay,
    Query(query): Query<ReportQuery>,
) -> Result<Response, Failure> {
    delay.sleep().await;
    let id = effects.draw(Kind::Report);
    effects.record(Kind::Report, &query.bytes.to_string(), &id)?;
    let body = match query.stream {
        0 => Body::from(report(&id, query.bytes).collect::<Vec<_>>().concat()),
        _ => Body::from_stream(stream::iter(
            report(&id, query.bytes).map(Ok::<_, io::Error>),
        )),
    };
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response())
}

/// A report's text: `bytes` bytes of lines with its id.
fn report(id: &str, bytes: u32) -> impl Iterator<Item = Bytes> + Send + use<> {
    let line = format!("{id}\n");
    // A page has complete lines, so that the next one continues the text.
    let page = Bytes::from(line.repeat(PAGE.div_ceil(line.len())));
    let mut left = bytes as usize;
    iter::from_fn(move || {
        let size = left.min(page.len());
        left -= size;
        (size > 0).then(|| page.slice(..size))
    })
}

fn default_length() -> u32 {
    1_000
}

/// Refuses too long a report while the query is parsed, before anything is executed.
fn bounded<'de, D: Deserializer<'de>>(query: D) -> Result<u32, D::Error> {
    match u32::deserialize(query)? {
        bytes if bytes <= LONGEST_REPORT => Ok(bytes),
        _ => Err(D::Error::custom(format_args!(
            "at most {LONGEST_REPORT} bytes"
        ))),
    }
}

async fn counts(State(effects): State<Effects>) -> Json<Counts> {
    Json(effects.counts())
}

/// An error of the handler. It is stored like any other response.
#[derive(Debug)]
enum Failure {
    /// The order is not valid.
    Refused(&'static str),
    /// The ledger could not be written.
    Ledger(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Ledger(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Explanation {
            status: &'static str,
            message: &'static str,
        }
        let status = "error";
        let (code, message) = match self {
            Self::Refused(message) => (StatusCode::BAD_REQUEST, message),
            Self::Ledger(error) => {
                tracing::error!(%error, "the ledger cannot be written");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the ledger cannot be written",
                )
            }
        };
        (code, Json(Explanation { status, message })).into_response()
    }
}
