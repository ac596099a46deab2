//! Each option reaches the engine. What the engine does with it is tested in the scenarios.

use axum::{
    Extension, Json, Router,
    extract::{FromRef, State},
    http::{Method, Request, StatusCode, request::Parts},
    routing::post,
};
use idempotent_runtime::{Crash, Idempotency, IdempotencyKey, Recovery, Scope, idempotent};

use crate::support::{TestResponse, json, send, serve};

/// A JSON request with these headers.
fn keyed(path: &str, body: &str, headers: &[(&'static str, &str)]) -> Request<String> {
    let mut request = json(path, body);
    for (name, value) in headers {
        request
            .headers_mut()
            .append(*name, value.parse().expect("valid"));
    }
    request
}

/// Sends requests in turn to one server.
async fn send_all<const N: usize>(
    router: Router,
    requests: [Request<String>; N],
) -> [TestResponse; N] {
    let address = serve(router).await;
    let mut responses = Vec::new();
    for request in requests {
        responses.push(send(address, request).await);
    }
    responses.try_into().expect("as many")
}

const KEY: (&str, &str) = ("idempotency-key", "k");

#[tokio::test]
async fn required() {
    #[idempotent(required)]
    async fn handler() {}
    let [response] = send_all(
        Router::new().route("/", post(handler)),
        [keyed("/", "", &[])],
    )
    .await;
    assert_eq!(response.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn header_strict_and_uuid() {
    #[idempotent(header = "X-Request-Key", strict, uuid)]
    async fn handler() {}
    let key = "\"7a0c5f3e-4b1d-4c8f-9a53-0c1b2d3e4f50\"";
    let requests = [
        keyed("/", "", &[("x-request-key", key)]),
        keyed("/", "", &[("x-request-key", key)]),
        keyed("/", "", &[("x-request-key", key.trim_matches('"'))]),
        keyed("/", "", &[("x-request-key", "\"k\"")]),
        keyed("/", "", &[KEY]),
    ];
    let [first, replay, bare, not_a_uuid, other] =
        send_all(Router::new().route("/", post(handler)), requests).await;
    assert!(!first.is_replay() && replay.is_replay());
    assert_eq!(
        (bare.status, not_a_uuid.status),
        (StatusCode::BAD_REQUEST, StatusCode::BAD_REQUEST)
    );
    assert_eq!((other.status, other.is_replay()), (StatusCode::OK, false));
}

#[tokio::test]
async fn name() {
    #[idempotent(name = "one-endpoint-of-two-routes", fingerprint(ignore_body))]
    async fn handler() {}
    let router = Router::new()
        .route("/a", post(handler))
        .route("/b", post(handler));
    let requests = [keyed("/a", "", &[KEY]), keyed("/b", "", &[KEY])];
    // Both have the same record, and their paths make different fingerprints.
    let [_, other] = send_all(router, requests).await;
    assert_eq!(other.status, StatusCode::CONFLICT);
    assert!(other.body.contains("mismatch"), "{}", other.body);
}

#[tokio::test]
async fn scope() {
    fn tenant(parts: &Parts) -> Option<Scope> {
        parts.headers.get("x-tenant").map(Scope::new)
    }
    #[idempotent(scope = tenant)]
    async fn handler() {}
    let requests = ["a", "b", "a"].map(|tenant| keyed("/", "", &[KEY, ("x-tenant", tenant)]));
    let [a, b, again] = send_all(Router::new().route("/", post(handler)), requests).await;
    assert!(!a.is_replay() && !b.is_replay() && again.is_replay());
}

#[tokio::test]
async fn fingerprint() {
    #[idempotent(fingerprint(headers("x-currency"), json, ignore_query))]
    async fn handler(body: String) -> String {
        body
    }
    let requests = [
        keyed("/?a=1", r#"{"a":1,"b":2}"#, &[KEY, ("x-currency", "eur")]),
        keyed(
            "/?a=2",
            r#"{ "b": 2, "a": 1 }"#,
            &[KEY, ("x-currency", "eur")],
        ),
        keyed("/", r#"{"a":1,"b":2}"#, &[KEY, ("x-currency", "usd")]),
    ];
    let [_, same, other] = send_all(Router::new().route("/", post(handler)), requests).await;
    assert!(same.is_replay());
    assert_eq!(other.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn cache() {
    #[idempotent(cache = "success")]
    async fn handler() -> StatusCode {
        StatusCode::BAD_REQUEST
    }
    let requests = [keyed("/", "", &[KEY]), keyed("/", "", &[KEY])];
    let responses = send_all(Router::new().route("/", post(handler)), requests).await;
    assert!(
        responses
            .iter()
            .all(|response| response.status == StatusCode::BAD_REQUEST && !response.is_replay())
    );
}

#[tokio::test]
async fn sizes() {
    #[idempotent(max_body = "4B", max_response = "4B")]
    async fn handler(body: String) -> String {
        body.repeat(2)
    }
    let requests = [
        keyed("/", "12345", &[KEY]),
        keyed("/", "123", &[KEY]),
        keyed("/", "123", &[KEY]),
    ];
    let [large, first, again] = send_all(Router::new().route("/", post(handler)), requests).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        (first.status, first.body.as_str()),
        (StatusCode::OK, "123123")
    );
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.body.contains("response_not_stored"), "{}", again.body);
}

#[tokio::test]
async fn on_crash() {
    async fn find_out(crash: Crash) -> Recovery {
        let _ = crash.attempt();
        Recovery::StillUnknown
    }
    mod nested {
        pub(super) fn find_out(
            _: super::Crash,
        ) -> futures_util::future::BoxFuture<'static, super::Recovery> {
            Box::pin(async { super::Recovery::NotExecuted })
        }
    }
    #[idempotent(on_crash = find_out)]
    async fn asks() {}
    #[idempotent(on_crash = nested::find_out)]
    async fn asks_elsewhere() {}
    #[allow(clippy::too_many_arguments, reason = "as many as there may be")]
    async fn asks_all(
        _: Crash,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: Method,
        _: State<u32>,
        _: State<u32>,
    ) -> Recovery {
        Recovery::StillUnknown
    }
    #[idempotent(on_crash = asks_all, state = u32)]
    async fn asks_with_the_most_arguments() {}
    #[idempotent(on_crash = "retry")]
    async fn retries() {}
    #[idempotent(on_crash = "refuse")]
    async fn refuses() {}
    let router = Router::new()
        .route("/a", post(asks))
        .route("/b", post(asks_elsewhere));
    let router = router.route("/c", post(retries)).route("/d", post(refuses));
    let router = router
        .route("/e", post(asks_with_the_most_arguments))
        .with_state(1);
    let requests = ["/a", "/b", "/c", "/d", "/e"].map(|path| keyed(path, "", &[KEY]));
    assert!(
        send_all(router, requests)
            .await
            .iter()
            .all(|response| response.status == StatusCode::OK)
    );
}

#[tokio::test]
async fn durations_and_waiting() {
    #[idempotent(
        ttl = "1h30m",
        lease = "10s",
        max_lifetime = "1m",
        wait_timeout = "500ms"
    )]
    async fn waits() {}
    #[idempotent(wait = false)]
    async fn refuses() {}
    let router = Router::new()
        .route("/a", post(waits))
        .route("/b", post(refuses));
    let requests = ["/a", "/b", "/a", "/b"].map(|path| keyed(path, "", &[KEY]));
    let [_, _, waited, refused] = send_all(router, requests).await;
    assert!(waited.is_replay() && refused.is_replay());
}

/// Keys are known only to the engine of their own route.
#[tokio::test]
async fn engine() {
    #[derive(Clone)]
    struct Second(Idempotency);
    impl From<Second> for Idempotency {
        fn from(second: Second) -> Self {
            second.0
        }
    }
    #[derive(Clone)]
    struct App {
        first: Idempotency,
        second: Second,
    }
    impl FromRef<App> for Idempotency {
        fn from_ref(app: &App) -> Self {
            app.first.clone()
        }
    }
    impl FromRef<App> for Second {
        fn from_ref(app: &App) -> Self {
            app.second.clone()
        }
    }
    #[idempotent(engine = State<Idempotency>, name = "shared")]
    async fn first(Json(_): Json<u32>) {}
    #[idempotent(engine = State<Second>, name = "shared", state = App)]
    async fn second(Json(_): Json<u32>) {}
    #[idempotent(name = "shared")]
    async fn extension(Json(_): Json<u32>) {}

    let engine = || Idempotency::builder().build().expect("valid");
    let app = App {
        first: engine(),
        second: Second(engine()),
    };
    let router = Router::new()
        .route("/first", post(first))
        .route("/second", post(second));
    let router = router
        .route("/extension", post(extension))
        .layer(Extension(engine()))
        .with_state(app);
    let paths = [
        "/first",
        "/second",
        "/extension",
        "/first",
        "/second",
        "/extension",
    ];
    let responses = send_all(router, paths.map(|path| keyed(path, "1", &[KEY]))).await;
    assert!(
        responses
            .iter()
            .all(|response| response.status == StatusCode::OK),
        "{responses:?}"
    );
    assert_eq!(
        responses.map(|response| response.is_replay()),
        [false, false, false, true, true, true]
    );
}

/// `engine` without arguments, and with `State` imported under another name.
#[tokio::test]
async fn engine_under_another_name_and_without_arguments() {
    use axum::extract::State as St;

    #[idempotent(engine = St<Idempotency>, state = Idempotency, name = "shared")]
    async fn checked() {}
    #[idempotent(engine = St<Idempotency>, name = "shared")]
    async fn unchecked() {}

    for handler in [post(checked), post(unchecked)] {
        let engine = Idempotency::builder().build().expect("valid");
        let router = Router::new().route("/", handler).with_state(engine.clone());
        let [first, second] =
            send_all(router, ["/", "/"].map(|path| keyed(path, "", &[KEY]))).await;
        assert!(!first.is_replay() && second.is_replay());
        // The record is in the store of the engine in the state, not of the one in the extension.
        let key = IdempotencyKey::new("k").expect("valid");
        let key = engine.store_key("shared", None, &key);
        assert!(engine.inspect(&key).await.expect("reachable").is_some());
    }
}
