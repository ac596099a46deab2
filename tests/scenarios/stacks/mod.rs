//! `IdempotencyLayer` and the attribute in the stacks of layers that services have (DESIGN.md, sections 3 and 8).
//!
//! | file | what it tests |
//! |---|---|
//! | `combinations` | each usual layer on each side of the engine compiles, and first requests, replays and mismatches are right |
//! | `positions` | each place that a layer can have: routers, routes, handlers, plain services |
//! | `sides` | what each layer does outside, and what it does inside |
//! | `time_outs` | time-outs inside never lead to a second execution, over HTTP/1.1 and h2 |
//! | `readiness` | busy, full, shedding and failing services behind the layer |
//! | `routers_answers` | the router's own 404 and 405, and those of handlers |
//! | `guide` | the guide's table has the rows that are tested here, and no others |

use axum::Router;
use http::{HeaderValue, StatusCode};
use idempotent_runtime::{Idempotency, IdempotencyLayer};

use crate::support::{CountingHandler, PAY, TestRequest, send};

mod combinations;
mod guide;
mod positions;
mod readiness;
mod routers_answers;
mod sides;
mod time_outs;

fn engine() -> Idempotency {
    Idempotency::builder().build().unwrap()
}

fn idempotency() -> IdempotencyLayer {
    IdempotencyLayer::new(engine())
}

fn payment() -> TestRequest {
    TestRequest::payment("k").header("authorization", "Bearer secret")
}

/// Sends a first request, its replay, another request under its key, and one without a key.
async fn assert_serves(what: &str, app: &Router, handler: &CountingHandler) {
    let before = handler.starts();
    let first = send(app, &payment()).await;
    let charged = |n: usize| format!("charge {n}");
    assert_eq!(
        (first.status, first.text()),
        (StatusCode::CREATED, charged(before + 1).as_str()),
        "{what}"
    );
    assert!(!first.replayed(), "{what}");
    let again = send(app, &payment()).await;
    assert_eq!(
        (again.status, again.text(), again.replayed()),
        (StatusCode::CREATED, charged(before + 1).as_str(), true),
        "{what}"
    );
    let mismatch = send(app, &payment().body(r#"{"amount":9999}"#)).await;
    assert_eq!(mismatch.status, StatusCode::CONFLICT, "{what}");
    assert_eq!(handler.starts(), before + 1, "{what}");
    let plain = TestRequest::post(PAY).header("authorization", "Bearer secret");
    let plain = send(app, &plain).await;
    assert_eq!(plain.text(), charged(before + 2), "{what}");
    assert!(!plain.headers.contains_key("idempotent-replay"), "{what}");
}

/// The value of a header that one layer sets.
fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}
