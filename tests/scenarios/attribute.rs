//! Every option of the attribute does what its documentation says (DESIGN.md, section 8).

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::{FromRef, Request, State},
    response::Response,
    routing::post,
};
use http::{Response as HttpResponse, request::Parts};
use idempotent_runtime::{Crash, Idempotency, MemoryStore, Policy, Recovery, Scope, idempotent};

use crate::support::{
    CountingHandler, Process, TestRequest, advance, run_ready_tasks, send, send_in_task,
    with_paused_clock,
};

/// A router with one handler at `/pay`. Where a default policy is given, it says the opposite of the tested option.
macro_rules! app {
    ($handler:expr, $endpoint:path) => {
        app!($handler, $endpoint, Policy::new())
    };
    ($handler:expr, $endpoint:path, $policy:expr) => {{
        let engine = Idempotency::builder().policy($policy).build().unwrap();
        app_with!($handler, $endpoint, engine)
    }};
}

/// The same router with this engine.
macro_rules! app_with {
    ($handler:expr, $endpoint:path, $engine:expr) => {
        Router::new()
            .route("/pay", post($endpoint))
            .layer(Extension($engine))
            .with_state($handler.clone())
    };
}

/// The router of a process on a store on which another process has crashed while it executed the payment.
macro_rules! app_after_crash {
    ($handler:expr, $endpoint:path) => {{
        let store = MemoryStore::new();
        let dying = Process::start(Idempotency::builder(), store.clone());
        let app = app_with!($handler, $endpoint, dying.engine.clone());
        $handler.close_gate();
        dying.crash(&app, &payment(), &$handler).await;
        $handler.open_gate();
        let engine = Idempotency::builder().store(store).build().unwrap();
        app_with!($handler, $endpoint, engine)
    }};
}

/// A handler annotated with these options.
macro_rules! endpoint {
    ($name:ident $(, $($options:tt)*)?) => {
        #[idempotent($($($options)*)?)]
        async fn $name(State(handler): State<CountingHandler>, request: Request) -> Response {
            handler.call(request).await
        }
    };
}

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

#[test]
fn ttl_says_how_long_an_outcome_is_replayed() {
    endpoint!(pay, ttl = "1m30s");
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app!(handler, pay);
        send(&app, &payment()).await.assert_charge(1);
        advance(Duration::from_secs(89)).await;
        send(&app, &payment()).await.assert_replay_of_charge(1);
        advance(Duration::from_secs(2)).await;
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn wait_false_answers_duplicates_at_once() {
    endpoint!(pay, wait = false);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app!(handler, pay, Policy::new().wait(true));
        handler.close_gate();
        let _first = send_in_task(&app, &payment());
        handler.started(1).await;
        send(&app, &payment()).await.assert_problem(409, "conflict");
    });
}

#[test]
fn wait_timeout_bounds_the_waiting() {
    endpoint!(pay, wait, wait_timeout = "3s");
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app!(handler, pay, Policy::new().wait(false));
        handler.close_gate();
        let _first = send_in_task(&app, &payment());
        handler.started(1).await;
        let waiter = send_in_task(&app, &payment());
        run_ready_tasks().await;
        advance(Duration::from_millis(2900)).await;
        assert!(!waiter.is_finished());
        advance(Duration::from_millis(200)).await;
        waiter.await.unwrap().assert_problem(409, "conflict");
    });
}

#[test]
fn lease_bounds_the_silence_and_max_lifetime_the_life_of_an_execution() {
    endpoint!(pay, lease = "5s", max_lifetime = "20s", wait = false);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let store = MemoryStore::new();
        let dying = Process::start(Idempotency::builder(), store.clone());
        let [app, other] = [(); 2].map(|()| {
            let engine = Idempotency::builder().store(store.clone());
            app_with!(handler, pay, engine.build().unwrap())
        });
        handler.close_gate();
        let crashed = app_with!(handler, pay, dying.engine.clone());
        dying.crash(&crashed, &payment(), &handler).await;
        advance(Duration::from_secs(4)).await;
        send(&app, &payment()).await.assert_problem(409, "conflict");
        advance(Duration::from_secs(2)).await;
        send(&app, &payment())
            .await
            .assert_problem(409, "outcome_unknown");
        let _living = send_in_task(&app, &TestRequest::payment("other"));
        handler.started(2).await;
        advance(Duration::from_secs(19)).await;
        for app in [&app, &other] {
            send(app, &TestRequest::payment("other"))
                .await
                .assert_problem(409, "conflict");
        }
        advance(Duration::from_secs(7)).await;
        // The process that executes it knows that it still runs; the others only see that its lease has lapsed.
        send(&app, &TestRequest::payment("other"))
            .await
            .assert_problem(409, "conflict");
        send(&other, &TestRequest::payment("other"))
            .await
            .assert_problem(409, "outcome_unknown");
    });
}

#[test]
fn on_crash_retry_executes_again() {
    endpoint!(pay, on_crash = "retry");
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app_after_crash!(handler, pay);
        advance(Duration::from_secs(31)).await;
        send(&app, &payment()).await.assert_charge(2);
    });
}

#[test]
fn on_crash_path_calls_the_function() {
    async fn find_out(crash: Crash) -> Recovery {
        let body = format!("attempt {} was found", crash.attempt());
        Recovery::Completed(HttpResponse::new(body.into()))
    }
    endpoint!(pay, on_crash = find_out);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app_after_crash!(handler, pay);
        advance(Duration::from_secs(31)).await;
        assert_eq!(send(&app, &payment()).await.text(), "attempt 1 was found");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn required_header_strict_and_uuid_decide_which_keys_are_accepted() {
    endpoint!(required, required);
    endpoint!(optional, required = false);
    endpoint!(header, header = "X-Token", required);
    endpoint!(strict, strict);
    endpoint!(uuid, uuid);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let none = TestRequest::post("/pay");
        let app = app!(handler, required);
        send(&app, &none).await.assert_problem(400, "missing_key");
        let app = app!(handler, optional, Policy::new().required(true));
        send(&app, &none).await.assert_charge(1);
        let app = app!(handler, header);
        send(&app, &payment())
            .await
            .assert_problem(400, "missing_key");
        send(&app, &none.clone().header("x-token", "t"))
            .await
            .assert_charge(2);
        send(&app, &none.clone().header("x-token", "t"))
            .await
            .assert_replay_of_charge(2);
        let app = app!(handler, strict);
        send(&app, &payment())
            .await
            .assert_problem(400, "invalid_key");
        send(&app, &TestRequest::payment("\"k\""))
            .await
            .assert_charge(3);
        let app = app!(handler, uuid);
        send(&app, &payment())
            .await
            .assert_problem(400, "invalid_key");
        send(
            &app,
            &TestRequest::payment("8e03978e-40d5-43e8-bc93-6894a57f9324"),
        )
        .await
        .assert_charge(4);
    });
}

#[test]
fn scope_names_the_caller() {
    fn tenant(parts: &Parts) -> Option<Scope> {
        parts.headers.get("x-tenant").map(Scope::new)
    }
    endpoint!(pay, scope = tenant);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app!(handler, pay);
        for (n, tenant) in ["one", "two"].into_iter().enumerate() {
            let request = payment().header("x-tenant", tenant);
            send(&app, &request).await.assert_charge(n + 1);
            send(&app, &request).await.assert_replay_of_charge(n + 1);
        }
    });
}

#[test]
fn fingerprint_says_what_must_be_equal() {
    endpoint!(headers, fingerprint(headers("X-Currency", "accept")));
    endpoint!(json, fingerprint(json));
    endpoint!(query, fingerprint(ignore_query));
    endpoint!(parameters, fingerprint(ignore_query("nonce")));
    endpoint!(ignore, fingerprint(ignore("/m/at")));
    endpoint!(form, fingerprint(form));
    endpoint!(body, fingerprint(ignore_body, ignore_content_type));
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = app!(handler, headers);
        send(&app, &payment().header("x-currency", "EUR"))
            .await
            .assert_charge(1);
        send(&app, &payment().header("x-currency", "USD"))
            .await
            .assert_problem(409, "mismatch");
        send(&app, &payment()).await.assert_problem(409, "mismatch");
        let same = payment().header("X-CURRENCY", "EUR").header("x-other", "1");
        send(&app, &same).await.assert_replay_of_charge(1);

        let app = app!(handler, json);
        let amount = |body: &'static str| {
            let request = TestRequest::payment("j").body(body);
            request.header("content-type", "application/json")
        };
        send(&app, &amount(r#"{"a":9007199254740993,"b":"x"}"#))
            .await
            .assert_charge(2);
        let spelled = r#" { "b" : "\u0078", "a" : 9007199254740993.0 } "#;
        send(&app, &amount(spelled))
            .await
            .assert_replay_of_charge(2);
        let rounded = r#"{"a":9007199254740992.0,"b":"x"}"#;
        send(&app, &amount(rounded))
            .await
            .assert_problem(409, "mismatch");

        let app = app!(handler, query);
        let path = |path: &str| TestRequest {
            path: path.into(),
            ..payment()
        };
        send(&app, &path("/pay?try=1")).await.assert_charge(3);
        send(&app, &path("/pay?try=2"))
            .await
            .assert_replay_of_charge(3);

        let app = app!(handler, body);
        send(&app, &payment().body("a")).await.assert_charge(4);
        let other = payment().body("b").header("content-type", "text/plain");
        send(&app, &other).await.assert_replay_of_charge(4);

        let app = app!(handler, parameters);
        send(&app, &path("/pay?a=1&nonce=1")).await.assert_charge(5);
        send(&app, &path("/pay?nonce=2&a=1"))
            .await
            .assert_replay_of_charge(5);
        send(&app, &path("/pay?a=2"))
            .await
            .assert_problem(409, "mismatch");

        let app = app!(handler, ignore);
        send(&app, &amount(r#"{"a":1,"m":{"at":1}}"#))
            .await
            .assert_charge(6);
        send(&app, &amount(r#"{"m":{},"a":1.0}"#))
            .await
            .assert_replay_of_charge(6);
        send(&app, &amount(r#"{"a":2,"m":{"at":1}}"#))
            .await
            .assert_problem(409, "mismatch");

        let app = app!(handler, form);
        let pairs = |body: &'static str| {
            let request = TestRequest::payment("f").body(body);
            request.header("content-type", "application/x-www-form-urlencoded")
        };
        send(&app, &pairs("a=1&b=2")).await.assert_charge(7);
        send(&app, &pairs("b=2&a=%31"))
            .await
            .assert_replay_of_charge(7);
        send(&app, &pairs("a=2&b=1"))
            .await
            .assert_problem(409, "mismatch");
    });
}

#[test]
fn cache_says_which_responses_are_stored() {
    endpoint!(all, cache = "all");
    endpoint!(no_server_errors, cache = "no-server-errors");
    endpoint!(success, cache = "success");
    with_paused_clock(async {
        for (status, stored) in [
            (201, [true; 3]),
            (404, [true, true, false]),
            (500, [true, false, false]),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            let handler = CountingHandler::responding(move |_| {
                axum::response::IntoResponse::into_response(status)
            });
            let apps = [
                app!(handler, all),
                app!(handler, no_server_errors),
                app!(handler, success),
            ];
            for (app, stored) in apps.iter().zip(stored) {
                assert!(!send(app, &payment()).await.replayed());
                assert_eq!(send(app, &payment()).await.replayed(), stored, "{status}");
            }
        }
    });
}

#[test]
fn release_names_the_statuses_that_release() {
    endpoint!(pay, release(404, 503));
    endpoint!(default);
    with_paused_clock(async {
        for (status, stored) in [
            (201, [true, true]),
            (404, [false, true]),
            (408, [true, true]),
            (503, [false, true]),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            let handler = CountingHandler::responding(move |_| {
                axum::response::IntoResponse::into_response(status)
            });
            for (app, stored) in [app!(handler, pay), app!(handler, default)]
                .iter()
                .zip(stored)
            {
                assert!(!send(app, &payment()).await.replayed());
                assert_eq!(send(app, &payment()).await.replayed(), stored, "{status}");
            }
        }
    });
}

#[test]
fn max_body_and_max_response_are_the_limits() {
    endpoint!(pay, max_body = "1KiB", max_response = "8B");
    with_paused_clock(async {
        let handler = CountingHandler::responding(|n| {
            axum::response::IntoResponse::into_response("x".repeat(7 + n))
        });
        let app = app!(handler, pay);
        let sized = |size: usize| TestRequest::payment(&format!("k{size}")).body("x".repeat(size));
        send(&app, &sized(1025))
            .await
            .assert_problem(413, "request_too_large");
        assert_eq!(send(&app, &sized(1024)).await.text().len(), 8);
        assert!(send(&app, &sized(1024)).await.replayed());
        assert_eq!(send(&app, &sized(1)).await.text().len(), 9);
        send(&app, &sized(1))
            .await
            .assert_problem(409, "response_not_stored");
    });
}

#[derive(Clone)]
struct App {
    engine: Idempotency,
    handler: CountingHandler,
}

impl FromRef<App> for Idempotency {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}

impl FromRef<App> for CountingHandler {
    fn from_ref(app: &App) -> Self {
        app.handler.clone()
    }
}

#[test]
fn engine_and_state_take_the_engine_from_the_routers_state() {
    endpoint!(pay, engine = State<Idempotency>);
    endpoint!(stated, engine = State<Idempotency>, state = App);
    with_paused_clock(async {
        let (handler, engine) = (CountingHandler::new(), Idempotency::builder());
        let engine = engine.policy(Policy::new().required(true)).build().unwrap();
        let app = Router::new()
            .route("/pay", post(pay))
            .route("/stated", post(stated));
        let app = app.with_state(App {
            engine,
            handler: handler.clone(),
        });
        send(&app, &TestRequest::post("/pay"))
            .await
            .assert_problem(400, "missing_key");
        send(&app, &payment()).await.assert_charge(1);
        send(&app, &payment()).await.assert_replay_of_charge(1);
        send(&app, &TestRequest::post("/stated"))
            .await
            .assert_problem(400, "missing_key");
        send(&app, &TestRequest::post("/stated").key("k"))
            .await
            .assert_charge(2);
    });
}

#[test]
fn inner_is_the_plain_function() {
    #[idempotent(inner = plainly)]
    async fn twice(State(_): State<CountingHandler>, body: String) -> String {
        body.repeat(2)
    }
    with_paused_clock(async {
        let handler = CountingHandler::new();
        assert_eq!(plainly(State(handler.clone()), "ab".into()).await, "abab");
        let app = app!(handler, twice);
        assert_eq!(send(&app, &payment().body("x")).await.text(), "xx");
        assert!(send(&app, &payment().body("x")).await.replayed());
    });
}

#[test]
fn options_not_given_fall_back_to_the_engine() {
    endpoint!(pay);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let policy = Policy::new()
            .ttl(Duration::from_secs(10))
            .required(true)
            .wait(false)
            .max_body(20);
        let app = app!(handler, pay, policy);
        send(&app, &TestRequest::post("/pay"))
            .await
            .assert_problem(400, "missing_key");
        send(&app, &payment().body("x".repeat(21)))
            .await
            .assert_problem(413, "request_too_large");
        send(&app, &payment()).await.assert_charge(1);
        advance(Duration::from_secs(11)).await;
        handler.close_gate();
        let _first = send_in_task(&app, &payment());
        handler.started(2).await;
        send(&app, &payment()).await.assert_problem(409, "conflict");
    });
}
