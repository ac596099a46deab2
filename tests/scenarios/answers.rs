//! Everything that a program reads of the engine's own answers, over real HTTP (DESIGN.md, section 7).

use std::time::Duration;

use axum::{Extension, Router, response::IntoResponse, routing::post};
use http::{HeaderName, StatusCode};
use idempotent_runtime::{
    Builder, Execution, Idempotency, MemoryStore, OnCrash, Policy, Profile, Resolution, idempotent,
    store::StoreErrorKind,
};
use serde_json::{Value, json};

use crate::support::{
    Adapter, Conn, CountingHandler, Fault, FaultyStore, Operation, Server, TestRequest,
    TestResponse, in_real_time,
};

/// One line of the contract: the code; its status with the profiles `Default`, `Ietf` and `Stripe`; `Retry-After`;
/// `action`; `retryable`; with `Stripe` also `error.type`, `error.code` and `Stripe-Should-Retry`.
type Row = (
    &'static str,
    [u16; 3],
    Option<&'static str>,
    &'static str,
    bool,
    &'static str,
    Option<&'static str>,
    &'static str,
);

/// The contract, by hand: whoever changes an answer changes it here and in DESIGN.md.
#[rustfmt::skip]
const TABLE: [Row; 14] = [
    ("missing_key",         [400, 400, 400], None,       "fix_request",    false, "invalid_request_error", None,                        "false"),
    ("invalid_key",         [400, 400, 400], None,       "fix_request",    false, "invalid_request_error", None,                        "false"),
    ("unreadable_body",     [400, 400, 400], None,       "retry_same_key", true,  "invalid_request_error", None,                        "true"),
    ("request_too_large",   [413, 413, 413], None,       "fix_request",    false, "invalid_request_error", None,                        "false"),
    ("mismatch",            [409, 422, 400], None,       "fix_request",    false, "idempotency_error",     None,                        "false"),
    ("caller_mismatch",     [409, 422, 400], None,       "fix_request",    false, "idempotency_error",     None,                        "false"),
    ("caller_unknown",      [401, 401, 401], None,       "fix_request",    false, "invalid_request_error", None,                        "false"),
    ("conflict",            [409, 409, 409], Some("5"),  "retry_same_key", true,  "idempotency_error",     Some("idempotency_key_in_use"), "true"),
    ("outcome_unknown",     [409, 409, 409], Some("60"), "retry_same_key", true,  "api_error",             Some("outcome_unknown"),     "false"),
    ("response_not_stored", [409, 409, 409], None,       "none",           false, "api_error",             Some("response_not_stored"), "false"),
    ("store_unavailable",   [503, 503, 503], Some("1"),  "retry_same_key", true,  "api_error",             None,                        "true"),
    ("overloaded",          [503, 503, 503], Some("1"),  "retry_same_key", true,  "api_error",             None,                        "true"),
    ("record_unreadable",   [500, 500, 500], None,       "none",           false, "api_error",             None,                        "false"),
    ("handler_panicked",    [500, 500, 500], None,       "none",           false, "api_error",             None,                        "false"),
];

const PROFILES: [Profile; 3] = [Profile::Default, Profile::Ietf, Profile::Stripe];

/// The headers that mark replays, of all profiles.
const REPLAY: [&str; 2] = ["idempotent-replay", "idempotent-replayed"];

/// How the message of Stripe's own error begins.
const REUSED: &str = "Keys for idempotent requests can only be used with the same parameters they were first used with";

/// Quoted, so that the strict profile accepts it too.
const KEY: &str = "\"k\"";

fn payment() -> TestRequest {
    TestRequest::payment(KEY)
}

/// A served app.
struct Service {
    server: Server,
    engine: Idempotency,
    handler: CountingHandler,
}

impl Service {
    async fn start(adapter: Adapter, settings: Builder, handler: CountingHandler) -> Self {
        let engine = settings.build().unwrap();
        let server = Server::start(adapter.app(&engine, &handler)).await;
        Self {
            server,
            engine,
            handler,
        }
    }

    async fn send(&self, request: &TestRequest) -> TestResponse {
        self.server.send(request).await
    }

    /// Sends a request whose execution has begun when this returns, and waits at the gate.
    async fn begin(&self, request: &TestRequest) -> Conn {
        self.handler.close_gate();
        let mut conn = Conn::open(self.server.address).await;
        conn.send(&request.wire()).await;
        self.handler.started(1).await;
        conn
    }
}

/// Makes an engine with these settings give this answer.
async fn provoke(code: &str, adapter: Adapter, settings: impl Fn() -> Builder) -> TestResponse {
    let service =
        async |settings: Builder| Service::start(adapter, settings, CountingHandler::new()).await;
    let with = async |policy: Policy| service(settings().policy(policy)).await;
    match code {
        "missing_key" => {
            let service = with(Policy::new().required(true)).await;
            service.send(&TestRequest::post("/pay")).await
        }
        "invalid_key" => service(settings()).await.send(&payment().key(KEY)).await,
        "unreadable_body" => {
            let service = service(settings()).await;
            let mut conn = Conn::open(service.server.address).await;
            conn.send(&payment().head("transfer-encoding: chunked"))
                .await;
            conn.send(b"not a chunk\r\n").await;
            conn.answer().await
        }
        "request_too_large" => {
            let service = with(Policy::new().max_body(8)).await;
            service.send(&payment()).await
        }
        "mismatch" => {
            let service = service(settings()).await;
            service.send(&payment()).await.assert_charge(1);
            service.send(&payment().body("{}")).await
        }
        "caller_mismatch" => {
            let service = service(settings()).await;
            let of = |caller| payment().header("authorization", caller);
            service.send(&of("Bearer alice")).await.assert_charge(1);
            service.send(&of("Bearer bob")).await
        }
        "caller_unknown" => {
            let service = with(Policy::new().require_caller(true)).await;
            service.send(&payment()).await
        }
        "conflict" => {
            let service = with(Policy::new().wait(false)).await;
            let _first = service.begin(&payment()).await;
            service.send(&payment()).await
        }
        "outcome_unknown" => {
            let store = MemoryStore::new();
            let ended = service(settings().store(store.clone())).await;
            let _first = ended.begin(&payment()).await;
            ended.engine.shutdown(Duration::ZERO).await;
            let service = service(settings().store(store)).await;
            service.send(&payment()).await
        }
        "response_not_stored" => {
            let service = with(Policy::new().max_response(4)).await;
            service.send(&payment()).await.assert_charge(1);
            service.send(&payment()).await
        }
        "store_unavailable" => {
            let store = FaultyStore::new();
            store.fail_always(Operation::Acquire, Fault::Unreachable);
            let settings = settings().store(store);
            let service = service(settings.store_timeout(Duration::from_millis(50))).await;
            service.send(&payment()).await
        }
        "overloaded" => {
            let store = MemoryStore::builder().max_records(0).build();
            service(settings().store(store))
                .await
                .send(&payment())
                .await
        }
        "record_unreadable" => {
            let store = FaultyStore::new();
            store.fail_always(Operation::Acquire, Fault::Error(StoreErrorKind::Corrupt));
            service(settings().store(store))
                .await
                .send(&payment())
                .await
        }
        "handler_panicked" => {
            let service = Service::start(adapter, settings(), panicking()).await;
            service.send(&payment()).await
        }
        other => unreachable!("no way to provoke {other}"),
    }
}

fn panicking() -> CountingHandler {
    CountingHandler::responding(|_| panic!("a panic of the scenario"))
}

/// The headers of an answer but for those that the server writes for each, sorted.
fn headers(answer: &TestResponse) -> Vec<(&str, &str)> {
    let lines = answer.headers.iter();
    let mut lines: Vec<_> = lines
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .filter(|(name, _)| !["date", "content-length", "connection"].contains(name))
        .collect();
    lines.sort_unstable();
    lines
}

/// Asserts that the answer has what the row says, and nothing else.
#[track_caller]
fn assert_answer(answer: &TestResponse, profile: usize, row: Row, type_base: &str) {
    let (code, statuses, retry_after, action, retryable, error_type, error_code, should_retry) =
        row;
    let context = format!("{code} with {:?}", PROFILES[profile]);
    let (status, stripe) = (statuses[profile], profile == 2);
    assert_eq!(answer.status.as_u16(), status, "{context}");

    let mut expected = vec![
        ("cache-control", "no-store"),
        ("content-type", "application/problem+json"),
        ("x-outcome", code),
    ];
    expected
        .extend((code == "caller_unknown").then_some(("www-authenticate", "Idempotency-Caller")));
    expected.extend(retry_after.map(|seconds| ("retry-after", seconds)));
    expected.extend(stripe.then_some(("stripe-should-retry", should_retry)));
    expected.sort_unstable();
    assert_eq!(headers(answer), expected, "{context}");

    let mut body = answer.json();
    let members = body.as_object_mut().unwrap();
    let detail = match members.remove("detail") {
        Some(Value::String(detail)) if detail.contains(": ") => detail,
        other => panic!("{context} has the detail {other:?}"),
    };
    let title = members.remove("title");
    assert!(
        title.is_some_and(|title| title.as_str() > Some("")),
        "{context}"
    );
    if stripe {
        let mut error = members.remove("error").unwrap();
        let message = error.as_object_mut().unwrap().remove("message").unwrap();
        let begin = if code.ends_with("mismatch") {
            REUSED
        } else {
            ""
        };
        let message = message.as_str().unwrap();
        assert!(
            message.starts_with(begin) && message.ends_with(&detail),
            "{message}"
        );
        let expected = match error_code {
            None => json!({ "type": error_type }),
            Some(error_code) => json!({ "type": error_type, "code": error_code }),
        };
        assert_eq!(error, expected, "{context}");
    }
    let expected = json!({
        "type": format!("{type_base}{code}"),
        "status": status,
        "code": code,
        "retryable": retryable,
        "action": action,
    });
    assert_eq!(body, expected, "{context}");
}

fn outcome_header(builder: Builder) -> Builder {
    builder.outcome_header(HeaderName::from_static("x-outcome"))
}

#[test]
fn every_answer_of_the_engine_is_as_the_contract_has_it_in_each_profile() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for (index, profile) in PROFILES.into_iter().enumerate() {
                for row in TABLE {
                    let settings = || outcome_header(Idempotency::builder().profile(profile));
                    let answer = provoke(row.0, adapter, settings).await;
                    assert_answer(&answer, index, row, "/problems/idempotency/");
                }
            }
        }
    });
}

#[test]
fn the_type_of_every_answer_begins_with_the_configured_base() {
    in_real_time(async {
        let base = "https://example.com/problems/";
        for row in TABLE {
            let settings = || outcome_header(Idempotency::builder().problem_type_base(base));
            let answer = provoke(row.0, Adapter::Attribute, settings).await;
            assert_answer(&answer, 0, row, base);
        }
    });
}

#[test]
fn replays_are_marked_as_the_profile_has_it() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            for (profile, mark) in PROFILES.into_iter().zip([REPLAY[0], REPLAY[0], REPLAY[1]]) {
                for (status, stripe_says) in [
                    (201, None),
                    (402, None),
                    (409, Some("false")),
                    (500, Some("false")),
                    (502, Some("false")),
                ] {
                    // Given a handler whose first response has this status.
                    let handler = CountingHandler::with_first_status(status);
                    let settings = outcome_header(Idempotency::builder().profile(profile));
                    let service = Service::start(adapter, settings, handler).await;

                    // When its request is sent twice.
                    let first = service.send(&payment()).await;
                    let again = service.send(&payment()).await;

                    // Then only the second answer is marked, and says whether a third makes sense.
                    let plain = ("content-type", "text/plain; charset=utf-8");
                    assert_eq!(headers(&first), [plain, ("x-outcome", "executed")]);
                    let mut expected = vec![plain, (mark, "true"), ("x-outcome", "replayed")];
                    if profile == Profile::Stripe {
                        expected.extend(stripe_says.map(|says| ("stripe-should-retry", says)));
                    }
                    expected.sort_unstable();
                    assert_eq!(headers(&again), expected, "{profile:?} {status}");
                    assert_eq!((again.status.as_u16(), again.text()), (status, "charge 1"));
                }
            }
        }
    });
}

#[test]
fn the_replay_of_a_panic_is_its_problem_with_the_mark() {
    in_real_time(async {
        for (index, profile) in PROFILES.into_iter().enumerate() {
            let settings = outcome_header(Idempotency::builder().profile(profile));
            let service = Service::start(Adapter::Attribute, settings, panicking()).await;
            service.send(&payment()).await;

            let mut again = service.send(&payment()).await;

            let mark = REPLAY[usize::from(index == 2)];
            assert_eq!(again.headers.remove(mark).unwrap(), "true", "{profile:?}");
            assert_eq!(
                again
                    .headers
                    .insert("x-outcome", "handler_panicked".parse().unwrap())
                    .unwrap(),
                "replayed"
            );
            let row = TABLE.into_iter().find(|row| row.0 == "handler_panicked");
            assert_answer(&again, index, row.unwrap(), "/problems/idempotency/");
        }
    });
}

#[test]
fn a_panic_that_is_not_final_asks_for_the_same_request() {
    in_real_time(async {
        // Given a route that executes again after a crash.
        let policy = Policy::new().on_crash(OnCrash::Retry);
        let settings = Idempotency::builder()
            .profile(Profile::Stripe)
            .policy(policy);
        let service = Service::start(Adapter::Attribute, settings, panicking()).await;

        // When its handler panics.
        let answer = service.send(&payment()).await;

        // Then programs of both kinds are told to repeat the request.
        answer.assert_problem(500, "handler_panicked");
        assert_eq!(answer.json()["action"], "retry_same_key");
        assert_eq!(answer.json()["error"]["type"], "api_error");
        assert_eq!(answer.lines("stripe-should-retry"), ["true"]);
    });
}

#[test]
fn an_extractor_without_a_key_answers_in_the_style_of_its_engine() {
    #[idempotent]
    async fn pay(_: Execution) -> &'static str {
        "paid"
    }

    in_real_time(async {
        for (index, profile) in PROFILES.into_iter().enumerate() {
            for base in ["/problems/idempotency/", "urn:problem:"] {
                // Given a handler that asks for its execution, on a route that requires no key.
                let settings = outcome_header(Idempotency::builder().profile(profile));
                let engine = settings.problem_type_base(base).build().unwrap();
                let app = Router::new()
                    .route("/pay", post(pay))
                    .layer(Extension(engine));
                let server = Server::start(app).await;

                // When a request has no key, then it is refused as the engine itself would.
                let answer = server.send(&TestRequest::post("/pay")).await;
                assert_answer(&answer, index, TABLE[0], base);
            }
        }

        // Given the same with the profile of Stripe and nothing else, then its SDKs understand that, too.
        let engine = Idempotency::builder()
            .profile(Profile::Stripe)
            .build()
            .unwrap();
        let app = Router::new()
            .route("/pay", post(pay))
            .layer(Extension(engine));
        let answer = Server::start(app)
            .await
            .send(&TestRequest::post("/pay"))
            .await;
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_eq!(answer.lines("stripe-should-retry"), ["false"]);
    });
}

#[test]
fn the_outcome_of_each_request_is_named_and_never_stored() {
    in_real_time(async {
        for adapter in [Adapter::Attribute, Adapter::Layer] {
            // Given a handler that passes on such headers of another service, and an engine that names outcomes.
            let handler = CountingHandler::responding(|_| {
                let headers = [("x-outcome", "forged"), ("idempotent-replay", "true")];
                (StatusCode::CREATED, headers, "charge 1").into_response()
            });
            let store = FaultyStore::new();
            let settings = outcome_header(Idempotency::builder()).store(store.clone());
            let service = Service::start(adapter, settings, handler).await;

            // When duplicates wait for an execution, and one comes later.
            let request = payment();
            let mut first = service.begin(&request).await;
            let waiting = service.send(&request);
            let opening = async {
                crate::support::wait_until(|| crate::support::waiters(&service.engine) == 1).await;
                service.handler.open_gate();
            };
            let (waited, ()) = tokio::join!(waiting, opening);
            let later = service.send(&payment()).await;

            // Then each answer names its own outcome, and the record has none.
            let outcomes = [&first.answer().await, &waited, &later]
                .map(|answer| answer.lines("x-outcome").join(","));
            assert_eq!(outcomes, ["executed", "replayed_after_wait", "replayed"]);
            assert!(
                !store.written().contains("x-outcome"),
                "{}",
                store.written()
            );

            // Without the setting, no answer has the header, and a handler may use it.
            let handler = CountingHandler::responding(|_| [("x-outcome", "mine")].into_response());
            let service = Service::start(adapter, Idempotency::builder(), handler).await;
            for _ in 0..2 {
                let answer = service.send(&payment()).await;
                assert_eq!(answer.lines("x-outcome"), ["mine"]);
            }
        }
    });
}

#[test]
fn a_response_that_an_operator_supplies_is_stored_without_the_engines_marks() {
    in_real_time(async {
        // Given a request whose outcome is unknown.
        let store = FaultyStore::new();
        let settings = || outcome_header(Idempotency::builder()).store(store.clone());
        let ended = Service::start(Adapter::Attribute, settings(), CountingHandler::new()).await;
        let _first = ended.begin(&payment()).await;
        ended.engine.shutdown(Duration::ZERO).await;

        // When an operator resolves it with a response that was read from a replay.
        let service = Service::start(Adapter::Attribute, settings(), CountingHandler::new()).await;
        let response = http::Response::builder()
            .header("x-outcome", "replayed")
            .header("idempotent-replay", "true")
            .body("charge 1".into())
            .unwrap();
        let resolution = Resolution::Completed(response);
        service
            .engine
            .resolve(&store.keys()[0], resolution)
            .await
            .unwrap();

        // Then the marks of the replay are not stored, and a retry has its own.
        for name in ["x-outcome", "idempotent-replay"] {
            assert!(!store.written().contains(name), "{}", store.written());
        }
        let again = service.send(&payment()).await;
        assert_eq!(
            headers(&again),
            [("idempotent-replay", "true"), ("x-outcome", "replayed")]
        );
    });
}
