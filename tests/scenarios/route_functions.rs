//! The functions that a route brings (DESIGN.md, section 8): where its key comes from, whether a request is covered, what
//! it asks for; and which headers of its responses are stored.

use axum::{Extension, Router, extract::State, response::Response, routing::any};
use http::{HeaderName, HeaderValue, Method, request::Parts};
use idempotent_runtime::{
    FingerprintRule, Idempotency, IdempotencyKey, IdempotencyLayer, Policy, idempotent,
};

use crate::support::{
    CountingHandler, PAY, Server, TestRequest, in_real_time, send, unprotected_app,
    with_paused_clock,
};

/// One app for each adapter: the annotated handler, and the plain one in a layer with the same policy.
fn apps(
    handlers: &[CountingHandler; 2],
    attribute: axum::routing::MethodRouter<CountingHandler>,
    policy: Policy,
) -> [Router; 2] {
    let engine = || Idempotency::builder().build().unwrap();
    [
        Router::new()
            .route(PAY, attribute)
            .layer(Extension(engine()))
            .with_state(handlers[0].clone()),
        unprotected_app(&handlers[1]).route_layer(IdempotencyLayer::new(engine()).policy(policy)),
    ]
}

fn handlers() -> [CountingHandler; 2] {
    [CountingHandler::new(), CountingHandler::new()]
}

macro_rules! endpoint {
    ($name:ident, $($options:tt)*) => {
        #[idempotent($($options)*)]
        async fn $name(
            State(handler): State<CountingHandler>,
            request: axum::extract::Request,
        ) -> Response {
            handler.call(request).await
        }
    };
}

fn event_id(parts: &Parts) -> Option<&HeaderValue> {
    let id = parts.headers.get("x-event-id")?;
    assert!(id != "panic", "the function panics");
    Some(id)
}

fn key_of_the_query(parts: &Parts) -> Option<String> {
    let mut pairs = parts.uri.query()?.split('&');
    pairs.find_map(|pair| pair.strip_prefix("key=").map(str::to_owned))
}

fn is_no_dry_run(parts: &Parts) -> bool {
    let dry = parts.headers.get("x-dry-run");
    assert!(
        dry.is_none_or(|value| value != "panic"),
        "the function panics"
    );
    dry.is_none()
}

/// The first word of the body.
fn first_word(parts: &Parts, body: &[u8]) -> Vec<u8> {
    assert!(
        !parts.headers.contains_key("x-panic"),
        "the function panics"
    );
    body.split(|byte| *byte == b' ')
        .next()
        .unwrap_or_default()
        .to_vec()
}

fn event(id: &[u8]) -> TestRequest {
    let mut request = TestRequest::post(PAY).body("{}");
    let id = HeaderValue::from_bytes(id).unwrap();
    request.headers.append("x-event-id", id);
    request
}

fn by_event_id() -> Policy {
    Policy::new().key(|parts| event_id(parts).map(IdempotencyKey::from_bytes))
}

#[test]
fn a_key_comes_from_the_function_of_the_route() {
    endpoint!(webhook, key = event_id);
    in_real_time(async {
        let handlers = handlers();
        let apps = apps(&handlers, any(webhook), by_event_id());
        for (app, handler) in apps.into_iter().zip(&handlers) {
            let server = Server::start(app).await;
            server.send(&event(b"evt 1")).await.assert_charge(1);
            server
                .send(&event(b"evt 1"))
                .await
                .assert_replay_of_charge(1);
            server.send(&event(b"evt 2")).await.assert_charge(2);
            // The header means nothing here, and without an id there is no key.
            let in_header = TestRequest::payment("evt 1");
            server.send(&in_header).await.assert_charge(3);
            server.send(&in_header).await.assert_charge(4);
            assert_eq!(handler.effects(), 4);
        }
    });
}

#[test]
fn a_key_of_the_function_is_checked_as_any_other() {
    endpoint!(webhook, key = event_id);
    with_paused_clock(async {
        let handlers = handlers();
        for app in apps(&handlers, any(webhook), by_event_id()) {
            let longest = [b'k'; 255];
            send(&app, &event(&longest)).await.assert_charge(1);
            send(&app, &event(&longest))
                .await
                .assert_replay_of_charge(1);
            let too_long = [b'k'; 256];
            for bad in [
                &b""[..],
                b"  ",
                b"\xff",
                "na\u{ef}ve".as_bytes(),
                b"a\tb",
                &too_long,
            ] {
                let refused = send(&app, &event(bad)).await;
                refused.assert_problem(400, "invalid_key");
                let detail = refused.json()["detail"].as_str().unwrap().to_owned();
                assert!(!detail.contains("header idempotency-key"), "{detail}");
            }
        }
        assert!(handlers.iter().all(|handler| handler.starts() == 1));
    });
}

#[test]
fn the_rules_for_keys_hold_for_the_function_too() {
    endpoint!(webhook, key = event_id, required, uuid);
    with_paused_clock(async {
        let handlers = handlers();
        let policy = by_event_id().required(true).uuid(true);
        for app in apps(&handlers, any(webhook), policy) {
            let missing = send(&app, &TestRequest::payment("k")).await;
            missing.assert_problem(400, "missing_key");
            send(&app, &event(b"evt-1"))
                .await
                .assert_problem(400, "invalid_key");
            let uuid = event(b"6ba7b810-9dad-41d1-80b4-00c04fd430c8");
            send(&app, &uuid).await.assert_charge(1);
            send(&app, &uuid).await.assert_replay_of_charge(1);
        }
    });
}

#[test]
fn a_key_in_the_query_is_a_key() {
    endpoint!(pay, key = key_of_the_query);
    with_paused_clock(async {
        let handlers = handlers();
        let policy =
            Policy::new().key(|parts| key_of_the_query(parts).map(IdempotencyKey::from_bytes));
        for app in apps(&handlers, any(pay), policy) {
            let with = |query| TestRequest::post(format!("{PAY}?{query}"));
            send(&app, &with("key=a")).await.assert_charge(1);
            send(&app, &with("key=a")).await.assert_replay_of_charge(1);
            send(&app, &with("key="))
                .await
                .assert_problem(400, "invalid_key");
            send(&app, &with("x=1")).await.assert_charge(2);
            send(&app, &with("x=1")).await.assert_charge(3);
        }
    });
}

#[test]
fn a_header_of_the_route_goes_before_a_function_of_the_engine() {
    endpoint!(by_header, header = "X-Key");
    endpoint!(by_default, ttl = "1h");
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .policy(by_event_id())
            .build()
            .unwrap();
        let app = Router::new()
            .route("/header", any(by_header))
            .route("/default", any(by_default))
            .layer(Extension(engine))
            .with_state(handler.clone());
        let to = |path| {
            TestRequest::post(path)
                .header("x-key", "k")
                .header("x-event-id", "e")
        };
        send(&app, &to("/header")).await.assert_charge(1);
        let mut other_event = to("/header");
        other_event
            .headers
            .insert("x-event-id", HeaderValue::from_static("f"));
        send(&app, &other_event).await.assert_replay_of_charge(1);
        send(&app, &to("/default")).await.assert_charge(2);
        let mut other_key = to("/default");
        other_key
            .headers
            .insert("x-key", HeaderValue::from_static("l"));
        send(&app, &other_key).await.assert_replay_of_charge(2);
    });
}

#[test]
fn a_request_that_when_leaves_out_runs_as_if_there_were_no_engine() {
    endpoint!(pay, when = is_no_dry_run, required);
    in_real_time(async {
        let handlers = handlers();
        let policy = Policy::new().when(is_no_dry_run).required(true);
        for app in apps(&handlers, any(pay), policy) {
            let server = Server::start(app).await;
            let dry = TestRequest::payment("k").header("x-dry-run", "1");
            server.send(&dry).await.assert_charge(1);
            server.send(&dry).await.assert_charge(2);
            let without_key = TestRequest::post(PAY).header("x-dry-run", "1");
            server.send(&without_key).await.assert_charge(3);
            server
                .send(&TestRequest::payment("k"))
                .await
                .assert_charge(4);
            server
                .send(&TestRequest::payment("k"))
                .await
                .assert_replay_of_charge(4);
            server
                .send(&TestRequest::post(PAY))
                .await
                .assert_problem(400, "missing_key");
        }
    });
}

#[test]
fn a_fingerprint_of_the_function_decides_what_is_the_same_request() {
    endpoint!(pay, fingerprint = first_word);
    in_real_time(async {
        let handlers = handlers();
        let policy = Policy::new().fingerprint(FingerprintRule::by(first_word));
        for app in apps(&handlers, any(pay), policy) {
            let server = Server::start(app).await;
            let order = |body: &'static str| TestRequest::post(PAY).key("k").body(body);
            server.send(&order("100 first")).await.assert_charge(1);
            let mut again = order("100 second").header("content-type", "text/plain");
            again.path = format!("{PAY}?sent=2");
            server.send(&again).await.assert_replay_of_charge(1);
            server
                .send(&order("200 first"))
                .await
                .assert_problem(409, "mismatch");
            // The method is part of the endpoint; the caller still counts.
            let mut put = order("100 first");
            put.method = Method::PUT;
            server.send(&put).await.assert_charge(2);
            let other_caller = order("100 first").header("authorization", "Bearer other");
            let answer = server.send(&other_caller).await;
            assert!(!answer.replayed() && answer.status == 409, "{answer:?}");
        }
    });
}

#[test]
fn a_fingerprint_of_the_function_still_tells_paths_apart() {
    #[idempotent(fingerprint = first_word)]
    async fn pay(
        State(handler): State<CountingHandler>,
        request: axum::extract::Request,
    ) -> Response {
        handler.call(request).await
    }
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/orders/{id}", any(pay))
            .layer(Extension(engine))
            .with_state(handler.clone());
        let order = |id: u32| {
            TestRequest::post(format!("/orders/{id}"))
                .key("k")
                .body("100")
        };
        send(&app, &order(1)).await.assert_charge(1);
        send(&app, &order(2)).await.assert_problem(409, "mismatch");
        send(&app, &order(1)).await.assert_replay_of_charge(1);
    });
}

#[test]
fn a_function_that_panics_is_answered_and_claims_nothing() {
    endpoint!(
        pay,
        key = event_id,
        when = is_no_dry_run,
        fingerprint = first_word
    );
    in_real_time(async {
        let handlers = handlers();
        let policy = by_event_id()
            .when(is_no_dry_run)
            .fingerprint(FingerprintRule::by(first_word));
        for (app, handler) in apps(&handlers, any(pay), policy).into_iter().zip(&handlers) {
            let server = Server::start(app).await;
            for bad in [
                event(b"panic"),
                event(b"1").header("x-dry-run", "panic"),
                event(b"1").header("x-panic", "1"),
            ] {
                let answer = server.send(&bad).await;
                answer.assert_problem(500, "handler_panicked");
                assert_eq!(answer.json()["action"], "retry_same_key");
            }
            assert_eq!(handler.starts(), 0);
            server.send(&event(b"1")).await.assert_charge(1);
        }
    });
}

/// A handler whose response has headers of every kind.
fn with_headers() -> CountingHandler {
    CountingHandler::responding(|_| {
        let response = Response::builder()
            .header("content-type", "text/csv")
            .header("content-encoding", "identity")
            .header("location", "/p/1")
            .header("x-served-by", "node-1")
            .header("x-served-by", "node-2")
            .header("etag", "\"1\"")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("set-cookie", "session=1");
        response.body("charge".into()).unwrap()
    })
}

/// Which of the handler's headers the first response and the replay have.
async fn kept(app: &Router) -> [Vec<String>; 2] {
    let mut kept = [const { Vec::new() }; 2];
    for names in &mut kept {
        let response = send(app, &TestRequest::payment("k")).await;
        *names = response
            .headers
            .iter()
            .map(|(name, _)| name.to_string())
            .filter(|name| !["idempotent-replay", "content-length"].contains(&name.as_str()))
            .collect();
        names.sort_unstable();
    }
    kept
}

#[test]
fn keep_headers_lists_what_is_stored_at_most() {
    endpoint!(pay, keep_headers("Location", "x-absent", "x-hop"));
    with_paused_clock(async {
        let handlers = [with_headers(), with_headers()];
        let policy = Policy::new().keep_headers(&["Location", "x-absent", "x-hop"]);
        for app in apps(&handlers, any(pay), policy) {
            let [first, replay] = kept(&app).await;
            assert_eq!(first.len(), 9, "{first:?}");
            // `Connection` names `x-hop`, so it cannot be kept.
            assert_eq!(replay, ["content-encoding", "content-type", "location"]);
        }
    });
}

#[test]
fn drop_headers_are_not_stored() {
    endpoint!(pay, drop_headers("X-Served-By", "x-absent"));
    with_paused_clock(async {
        let handlers = [with_headers(), with_headers()];
        let names = ["x-served-by", "x-absent"].map(HeaderName::from_static);
        let policy = Policy::new().drop_header_names(names);
        for app in apps(&handlers, any(pay), policy) {
            let [first, replay] = kept(&app).await;
            assert_eq!(first.len(), 9, "{first:?}");
            let stored = ["content-encoding", "content-type", "etag", "location"];
            assert_eq!(replay, stored);
        }
    });
}

#[test]
fn a_routes_choice_of_headers_replaces_the_engines() {
    endpoint!(pay, drop_headers("etag"));
    with_paused_clock(async {
        let engine = Idempotency::builder().policy(Policy::new().keep_headers(&["location"]));
        let app = Router::new()
            .route(PAY, any(pay))
            .layer(Extension(engine.build().unwrap()))
            .with_state(with_headers());
        let [_, replay] = kept(&app).await;
        assert_eq!(
            replay,
            [
                "content-encoding",
                "content-type",
                "location",
                "x-served-by",
                "x-served-by"
            ]
        );
    });
}

#[test]
#[should_panic(expected = "keep_headers and drop_headers contradict each other")]
fn a_policy_that_keeps_and_drops_is_refused() {
    let _ = Policy::new()
        .keep_headers(&["etag"])
        .drop_headers(&["x-served-by"]);
}

#[test]
#[should_panic(expected = "is never stored")]
fn a_policy_that_keeps_what_is_never_stored_is_refused() {
    let _ = Policy::new().keep_headers(&["etag", "X-B3-TraceId"]);
}

#[test]
#[should_panic(expected = "is never stored")]
fn a_policy_read_at_run_time_that_keeps_what_is_never_stored_is_refused() {
    let _ = Policy::new().keep_header_names([HeaderName::from_static("set-cookie")]);
}

/// A request in a request: the key that a function finds marks it as claimed.
#[test]
fn a_layer_and_an_annotated_handler_with_the_same_function_execute_once() {
    endpoint!(pay, key = event_id);
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let layer = IdempotencyLayer::new(engine).policy(by_event_id());
        let app = Router::new()
            .route(PAY, any(pay))
            .route_layer(layer)
            .with_state(handler.clone());
        send(&app, &event(b"1")).await.assert_charge(1);
        send(&app, &event(b"1")).await.assert_replay_of_charge(1);
        assert_eq!(handler.attempts(), [1]);
    });
}

/// An opaque key is none of the others: whether it marks the request as claimed is decided by the route's own rules.
#[test]
fn a_layer_and_an_annotated_handler_with_opaque_keys_execute_once() {
    endpoint!(pay, ttl = "1h");
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().policy(Policy::new().opaque(true));
        let engine = engine.build().unwrap();
        let app = Router::new()
            .route(PAY, any(pay))
            .layer(Extension(engine.clone()))
            .route_layer(IdempotencyLayer::new(engine))
            .with_state(handler.clone());
        for key in ["order 123", "a,b", r#"{"order":7}"#] {
            let n = handler.starts() + 1;
            send(&app, &TestRequest::payment(key))
                .await
                .assert_charge(n);
            let again = send(&app, &TestRequest::payment(key)).await;
            again.assert_replay_of_charge(n);
        }
    });
}
