//! The service: four routes, protected by the attribute and by the layer, whose handlers write the ledger.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    thread,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{FromRequestParts, State},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body::{Body as HttpBody, Frame};
use idempotent_runtime::{
    Execution, Idempotency, IdempotencyLayer, OnCrash, Policy, Retention, idempotent,
};
use tokio::time::{Sleep, sleep};

use crate::{
    answer::NOTHING_HAPPENED,
    ledger::{Ledger, outcome},
    order::{
        BRIEF_TTL, LEASE, MAX_LIFETIME, MAX_RESPONSE, Order, Protection, Route, Work, is_rival,
        number,
    },
};

/// The default policy of the engines.
pub(crate) fn policy() -> Policy {
    Policy::new()
        .lease(LEASE)
        .max_lifetime(MAX_LIFETIME)
        .max_response(MAX_RESPONSE)
        .wait_timeout(LEASE * 3)
}

/// All routes with this engine.
pub(crate) fn app(engine: &Idempotency, ledger: &Arc<Ledger>) -> Router {
    let attribute = Router::new()
        .route("/attribute/refuse", post(refuse))
        .route("/attribute/no-wait", post(no_wait))
        .route("/attribute/retry", post(retry))
        .route("/attribute/brief", post(brief))
        .layer(Extension(engine.clone()));
    let unprotected = Protection::None.name();
    let mut app = attribute;
    for route in Route::ALL {
        let layer = IdempotencyLayer::new(engine.clone())
            .policy(layer_policy(route))
            .endpoint(format!("layer-{}", route.name()));
        let layered = Router::new().route(
            &format!("/layer/{}", route.name()),
            post(unprotected_handler),
        );
        app = app.merge(layered.route_layer(layer)).route(
            &format!("/{unprotected}/{}", route.name()),
            post(unprotected_handler),
        );
    }
    app.with_state(Arc::clone(ledger))
}

fn layer_policy(route: Route) -> Policy {
    match route {
        Route::Refuse => Policy::new(),
        Route::NoWait => Policy::new().wait(false),
        Route::Retry => Policy::new().on_crash(OnCrash::Retry),
        Route::Brief => Policy::new().ttl(BRIEF_TTL),
    }
}

type LedgerState = State<Arc<Ledger>>;

#[idempotent(name = "attribute-refuse")]
async fn refuse(
    guard: Guard,
    ledger: LedgerState,
    execution: Option<Execution>,
    body: Bytes,
) -> Response {
    work(guard, ledger, execution, body).await
}

#[idempotent(name = "attribute-no-wait", wait = false)]
async fn no_wait(
    guard: Guard,
    ledger: LedgerState,
    execution: Option<Execution>,
    body: Bytes,
) -> Response {
    work(guard, ledger, execution, body).await
}

#[idempotent(name = "attribute-retry", on_crash = "retry")]
async fn retry(
    guard: Guard,
    ledger: LedgerState,
    execution: Option<Execution>,
    body: Bytes,
) -> Response {
    work(guard, ledger, execution, body).await
}

#[idempotent(name = "attribute-brief", ttl = "2s")]
async fn brief(
    guard: Guard,
    ledger: LedgerState,
    execution: Option<Execution>,
    body: Bytes,
) -> Response {
    work(guard, ledger, execution, body).await
}

async fn unprotected_handler(
    guard: Guard,
    ledger: LedgerState,
    execution: Option<Execution>,
    body: Bytes,
) -> Response {
    work(guard, ledger, execution, body).await
}

/// Rejects a request, or panics, as its order says.
struct Guard(Order);

impl FromRequestParts<Arc<Ledger>> for Guard {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, ledger: &Arc<Ledger>) -> Result<Self, Response> {
        let key = parts.headers.get("idempotency-key");
        let key = key.and_then(|key| number(key.to_str().ok()?));
        let Some(entry) = key.and_then(|key| ledger.entry(key)) else {
            return Err((StatusCode::NOT_FOUND, "no such order").into_response());
        };
        let order = entry.order;
        match order.work {
            Work::Rejects(times) if ledger.refuses(order.key, times) => Err(nothing_happened()),
            Work::PanicsExtracting(times) if ledger.refuses(order.key, times) => {
                panic!("{PLANNED}")
            }
            _ => Ok(Self(order)),
        }
    }
}

/// The text of all panics that the run plans, so that its log can leave them out.
pub(crate) const PLANNED: &str = "a planned panic";

fn nothing_happened() -> Response {
    (StatusCode::TOO_MANY_REQUESTS, NOTHING_HAPPENED).into_response()
}

/// The handler behind every route.
async fn work(
    Guard(order): Guard,
    State(ledger): LedgerState,
    execution: Option<Execution>,
    body: Bytes,
) -> Response {
    let key = order.key;
    let attempt = execution.as_ref().map_or(1, Execution::attempt);
    let execution = ledger.start(key, attempt, is_rival(&body));
    match order.work {
        Work::Takes(time) => sleep(time).await,
        Work::Blocks(time) => thread::sleep(time),
        Work::BlocksInPlace(time) => tokio::task::block_in_place(|| thread::sleep(time)),
        Work::Panics(times) if ledger.refuses(key, times) || order.route != Route::Retry => {
            panic!("{PLANNED}")
        }
        Work::Refuses(times) if ledger.refuses(key, times) => {
            ledger.released(key, execution);
            return nothing_happened();
        }
        Work::Releases(times) if ledger.refuses(key, times) => {
            ledger.released(key, execution);
            let status = StatusCode::BAD_GATEWAY;
            return (status, Retention::Release, NOTHING_HAPPENED).into_response();
        }
        _ => {}
    }
    respond(order, execution, &ledger)
}

/// Has the effect, and responds.
fn respond(order: Order, execution: usize, ledger: &Arc<Ledger>) -> Response {
    let mut size = order.size;
    if order.work == Work::Floods {
        size += MAX_RESPONSE;
    }
    let body = outcome(order.key, execution, rand::random(), size);
    let mut status = StatusCode::CREATED;
    if order.work == Work::Fails {
        status = StatusCode::UNPROCESSABLE_ENTITY;
    } else {
        ledger.effect(order.key, execution);
    }
    let (body, pause, end) = match order.work {
        Work::PanicsLate => panic!("{PLANNED}"),
        Work::Streams(pause) => (body, pause, End::Whole),
        Work::PanicsInBody => (body, std::time::Duration::ZERO, End::Panics),
        Work::BreaksOff => (body, std::time::Duration::ZERO, End::Breaks),
        _ => return (status, headers(execution), body).into_response(),
    };
    let body = Body::new(Pieces {
        of: (Arc::clone(ledger), order.key, execution),
        left: body,
        pause,
        sleep: Box::pin(sleep(pause)),
        end,
    });
    (status, headers(execution), body).into_response()
}

fn headers(execution: usize) -> [(http::HeaderName, HeaderValue); 2] {
    [
        (
            http::HeaderName::from_static("x-execution"),
            execution.into(),
        ),
        (CONTENT_TYPE, HeaderValue::from_static("text/plain")),
    ]
}

/// How a streamed body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Breaks,
    Panics,
}

/// A body of unknown size, piece by piece.
struct Pieces {
    /// The ledger, the key and the execution.
    of: (Arc<Ledger>, u64, usize),
    left: Bytes,
    pause: std::time::Duration,
    sleep: Pin<Box<Sleep>>,
    end: End,
}

/// About this many pieces make one body.
const PIECES: usize = 4;

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.sleep.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if self.left.len() <= 8 {
            match self.end {
                End::Whole if self.left.is_empty() => {
                    let (ledger, key, execution) = &self.of;
                    ledger.ended(*key, *execution);
                    return Poll::Ready(None);
                }
                End::Whole => {}
                End::Breaks => {
                    return Poll::Ready(Some(Err(std::io::Error::other("the body breaks off"))));
                }
                End::Panics => panic!("{PLANNED}"),
            }
        }
        let next = (self.left.len() / PIECES).max(8).min(self.left.len());
        let piece = self.left.split_to(next);
        self.sleep = Box::pin(sleep(self.pause));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}
