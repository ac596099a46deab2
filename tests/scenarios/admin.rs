//! The admin routes on a service's records (`idempotent_runtime::admin`). Who may ask what is tested beside them.

use std::time::Duration;

use axum::Router;
use idempotent_runtime::{
    Builder, Idempotency, MemoryStore,
    admin::{self, Access},
};
use serde_json::{Value, json};

use crate::support::{
    Adapter, CountingHandler, Log, TestRequest, TestResponse, advance, crash, send,
    with_paused_clock,
};

mod browser;
mod page;

const LEASE: Duration = Duration::from_secs(30);
/// What no output may contain.
const KEY: &str = "canary-of-the-key";
const CREDENTIAL: &str = "canary-of-the-credential";
const COOKIE: &str = "canary-of-the-cookie";
const BODY: &str = "canary-of-the-body";
const RECEIPT: &str = "canary-of-the-receipt";

fn payment() -> TestRequest {
    TestRequest::payment(KEY)
        .header("authorization", &format!("Bearer {CREDENTIAL}"))
        .header("cookie", &format!("session={COOKIE}"))
        .body(BODY)
}

/// A service with the payment and, under a prefix, the admin routes for Ann.
fn service(engine: &Idempotency, handler: &CountingHandler) -> Router {
    let guard = |_: &http::request::Parts| Access::Write("ann".into());
    let admin = admin::router(engine.clone(), guard);
    Adapter::Layer
        .app(engine, handler)
        .nest("/ops/admin", admin)
}

/// A service on a store in which the payment's outcome is unknown.
async fn unknown(old: Builder, new: Builder) -> (Router, CountingHandler) {
    let handler = CountingHandler::new();
    let store = MemoryStore::new();
    handler.close_gate();
    crash(Adapter::Layer, old, store.clone(), &payment(), &handler).await;
    handler.open_gate();
    advance(LEASE * 2).await;
    let engine = new.store(store).admin_writes(true).build().unwrap();
    (service(&engine, &handler), handler)
}

async fn get(app: &Router, path: &str) -> TestResponse {
    let path = format!("/ops/admin/api{path}");
    send(app, &TestRequest::new(http::Method::GET, path)).await
}

async fn post(app: &Router, path: &str, body: Value) -> TestResponse {
    let request = TestRequest::post(format!("/ops/admin/api{path}"));
    let request = request.header("content-type", "application/json");
    send(app, &request.body(body.to_string())).await
}

/// The ID of the only record in this answer.
fn only(answer: &TestResponse) -> String {
    let records = answer.json()["records"].clone();
    assert_eq!(records.as_array().unwrap().len(), 1, "{answer:?}");
    records[0]["id"].as_str().unwrap().to_owned()
}

fn receipt(status: u16) -> Value {
    let headers = [["content-type", "text/plain"]];
    json!({
        "reason": "the provider has the charge",
        "response": { "status": status, "headers": headers, "body": RECEIPT },
    })
}

fn sent() -> Value {
    json!({ "endpoint": "POST /pay", "key": KEY })
}

#[test]
fn a_record_in_doubt_is_found_and_resolved_and_retries_replay_the_receipt() {
    with_paused_clock(async {
        let (app, handler) = unknown(Idempotency::builder(), Idempotency::builder()).await;

        // By its state, by the beginning of its ID, and by what the client sent.
        let listed = get(&app, "/records?state=unknown").await;
        let id = only(&listed);
        assert_eq!(listed.json()["records"][0]["unknown_for_seconds"], 30);
        assert_eq!(
            get(&app, &format!("/records/{}", &id[..16])).await.json()["id"],
            *id
        );
        assert_eq!(only(&post(&app, "/lookup", sent()).await), id);
        assert_eq!(get(&app, "/stats").await.json()["unknown"], 1);

        let done = post(&app, &format!("/records/{id}/resolve"), receipt(202)).await;
        assert_eq!(done.json(), json!({ "id": id, "done": "resolved" }));

        let retry = send(&app, &payment()).await;
        assert!(retry.replayed() && retry.text() == RECEIPT, "{retry:?}");
        assert_eq!((retry.status.as_u16(), handler.starts()), (202, 1));
        let again = post(
            &app,
            &format!("/records/{id}/release"),
            json!({"reason": "r"}),
        )
        .await;
        again.assert_problem(409, "already_completed");

        let events = get(&app, "/audit").await.json()["events"].clone();
        let stages = events.as_array().unwrap().iter().map(|event| {
            (
                event["actor"].as_str().unwrap().to_owned(),
                event["stage"].as_str().unwrap().to_owned(),
            )
        });
        let ann = |stage: &str| ("ann".to_owned(), stage.to_owned());
        assert_eq!(stages.collect::<Vec<_>>(), [ann("done"), ann("begun")]);
        assert_eq!(
            get(&app, "/series").await.json()["minutes"][59]["completed"],
            1
        );

        // Forgotten, it executes again.
        post(
            &app,
            &format!("/records/{id}/forget"),
            json!({"reason": "a test"}),
        )
        .await;
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn a_record_under_the_other_secret_is_found_and_resolved() {
    const OLD: &[u8] = b"the old secret, 16 bytes or more";
    const NEW: &[u8] = b"the new secret, 16 bytes or more";
    with_paused_clock(async {
        let new = Idempotency::builder().secret(NEW).and_secret(OLD);
        let (app, handler) = unknown(Idempotency::builder().secret(OLD), new).await;

        let id = only(&post(&app, "/lookup", sent()).await);
        post(&app, &format!("/records/{id}/resolve"), receipt(202)).await;
        let retry = send(&app, &payment()).await;
        assert!(retry.replayed() && retry.text() == RECEIPT, "{retry:?}");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_released_record_executes_once_more() {
    with_paused_clock(async {
        let (app, handler) = unknown(Idempotency::builder(), Idempotency::builder()).await;
        let id = only(&get(&app, "/records").await);
        let done = post(
            &app,
            &format!("/records/{id}/release"),
            json!({"reason": "no charge"}),
        )
        .await;
        assert_eq!(done.json()["done"], "released");
        send(&app, &payment()).await.assert_charge(2);
        send(&app, &payment()).await.assert_replay_of_charge(2);
        assert_eq!(handler.starts(), 2);
    });
}

/// An engine shows these to nobody who did not ask for them by `reveal`.
#[test]
fn no_answer_and_no_log_has_a_key_a_credential_or_a_body() {
    with_paused_clock(async {
        let (log, _guard) = Log::collect();
        let (app, _handler) = unknown(Idempotency::builder(), Idempotency::builder()).await;
        let id = only(&post(&app, "/lookup", sent()).await);
        let act = |act: &str| format!("/records/{id}/{act}");
        let mut answers = vec![
            post(&app, "/lookup", json!({ "key": KEY })).await,
            post(
                &app,
                "/lookup",
                json!({ "endpoint": "POST /pay", "key": [KEY] }),
            )
            .await,
            post(&app, &act("resolve"), receipt(99)).await,
            post(&app, &act("resolve"), receipt(201)).await,
            post(&app, &act("resolve"), receipt(201)).await,
            send(&app, &TestRequest::new(http::Method::GET, "/ops/admin")).await,
        ];
        let id = only(&get(&app, "/records").await);
        let paths = [
            "/access",
            "/stats",
            "/records",
            "/series",
            "/audit",
            "/records?state=completed",
        ];
        for path in paths {
            answers.push(get(&app, path).await);
        }
        answers.push(get(&app, &format!("/records/{id}")).await);
        for answer in &answers {
            for canary in [KEY, CREDENTIAL, COOKIE, BODY, RECEIPT] {
                assert!(
                    !answer.text().contains(canary),
                    "{canary} in {}",
                    answer.text()
                );
            }
        }

        let revealed = post(
            &app,
            &act("reveal"),
            json!({ "reason": "a claim of the client" }),
        )
        .await;
        let shown = revealed.json();
        assert_eq!(
            (&shown["body"], &shown["status"]),
            (&json!(RECEIPT), &json!(201))
        );
        assert_eq!(shown["headers"], json!([["content-type", "text/plain"]]));
        assert_eq!(
            get(&app, "/audit").await.json()["events"][0]["action"],
            "reveal"
        );

        let log = log.text();
        assert!(
            log.contains("an operator acted on a record"),
            "the log is collected"
        );
        for canary in [KEY, CREDENTIAL, COOKIE, BODY, RECEIPT] {
            assert!(!log.contains(canary), "{canary} in the log");
        }
    });
}
