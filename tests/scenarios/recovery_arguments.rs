//! What a recovery function can take besides the crash: extractors, with the router's state (DESIGN.md, sections 1, 4 and
//! 8).

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{
        FromRef, FromRequestParts, MatchedPath, OriginalUri, Path, RawQuery, Request, State,
    },
    response::Response,
    routing::post,
};
use http::{HeaderMap, Method, StatusCode, request::Parts};
use idempotent_runtime::{
    Crash, Execution, Idempotency, IdempotencyLayer, MemoryStore, OnCrash, Policy, Recovery,
    idempotent,
};

use crate::support::{
    CountingHandler, Log, Server, TestRequest, TestResponse, advance, in_real_time, send,
    send_in_task, with_paused_clock,
};

const LEASE: Duration = Duration::from_secs(30);

/// The application's own book of what happened, in the router's state.
#[derive(Clone)]
struct Ledger(&'static str);

#[derive(Clone)]
struct App {
    handler: CountingHandler,
    ledger: Ledger,
}

impl FromRef<App> for Ledger {
    fn from_ref(app: &App) -> Self {
        app.ledger.clone()
    }
}

impl FromRef<App> for CountingHandler {
    fn from_ref(app: &App) -> Self {
        app.handler.clone()
    }
}

fn app(handler: &CountingHandler) -> App {
    App {
        handler: handler.clone(),
        ledger: Ledger("the app's ledger"),
    }
}

fn payment() -> TestRequest {
    TestRequest::payment("k")
}

fn found(by: &str, crash: &Crash) -> Recovery {
    let body = format!("{by} knows attempt {}", crash.attempt());
    let found = http::Response::builder().status(201).body(body.into());
    Recovery::Completed(found.unwrap())
}

fn engine(store: &MemoryStore) -> Idempotency {
    engine_with(store, Policy::new())
}

fn engine_with(store: &MemoryStore, policy: Policy) -> Idempotency {
    let builder = Idempotency::builder().store(store.clone());
    builder.policy(policy).build().unwrap()
}

/// The store of a process that ended while it executed this request. The handler lets further executions through.
async fn crashed(
    handler: &CountingHandler,
    request: &TestRequest,
    router: impl Fn(Idempotency) -> Router,
) -> MemoryStore {
    let store = MemoryStore::new();
    let engine = engine(&store);
    handler.close_gate();
    send_in_task(&router(engine.clone()), request);
    handler.started(1).await;
    assert_eq!(engine.shutdown(Duration::ZERO).await.unknown, 1);
    (2..10).for_each(|n| handler.let_through(n));
    store
}

/// The answer to a retry over HTTP, in another process.
async fn retry(
    store: &MemoryStore,
    request: &TestRequest,
    router: impl Fn(Idempotency) -> Router,
) -> TestResponse {
    let server = Server::start(router(engine(store))).await;
    server.send(request).await
}

/// Crashes an execution behind this router, and sees that the recovery function of its route finds this.
async fn finds(expected: &str, handler: &CountingHandler, router: impl Fn(Idempotency) -> Router) {
    let store = crashed(handler, &payment(), &router).await;
    for replayed in [false, true] {
        let answer = retry(&store, &payment(), &router).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (201, expected));
        assert_eq!(answer.replayed(), replayed);
    }
    assert_eq!(handler.starts(), 1);
}

/// The same for one route of a router with the state [`App`].
macro_rules! finds_in_an_app {
    ($expected:expr, $route:expr) => {
        let handler = CountingHandler::new();
        let router = |engine| {
            let router = Router::new().route("/pay", post($route));
            router.layer(Extension(engine)).with_state(app(&handler))
        };
        finds($expected, &handler, router).await;
    };
}

async fn by_state(crash: Crash, State(app): State<App>) -> Recovery {
    found(app.ledger.0, &crash)
}

async fn by_substate(crash: Crash, State(ledger): State<Ledger>) -> Recovery {
    found(ledger.0, &crash)
}

async fn by_extension(crash: Crash, Extension(ledger): Extension<Ledger>) -> Recovery {
    found(ledger.0, &crash)
}

async fn by_itself(crash: Crash) -> Recovery {
    found("the function", &crash)
}

#[test]
fn a_recovery_function_takes_the_routers_state() {
    #[idempotent(state = App, on_crash = by_state)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        finds_in_an_app!("the app's ledger knows attempt 1", pay);
    });
}

#[test]
fn a_recovery_function_takes_a_part_of_the_routers_state() {
    #[idempotent(state = App, on_crash = by_substate)]
    async fn pay(State(handler): State<CountingHandler>, request: Request) -> Response {
        handler.call(request).await
    }
    // The state that the attribute names may itself be a part of the router's.
    #[idempotent(state = CountingHandler, on_crash = by_handler)]
    async fn pay_in_a_part(State(handler): State<CountingHandler>, request: Request) -> Response {
        handler.call(request).await
    }
    async fn by_handler(crash: Crash, State(handler): State<CountingHandler>) -> Recovery {
        found(&format!("a handler started {}", handler.starts()), &crash)
    }
    in_real_time(async {
        finds_in_an_app!("the app's ledger knows attempt 1", pay);
        finds_in_an_app!("a handler started 1 knows attempt 1", pay_in_a_part);
    });
}

#[test]
fn a_recovery_function_takes_what_layers_inserted_whether_the_state_is_named_or_not() {
    #[idempotent(on_crash = by_extension)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    #[idempotent(state = App, on_crash = by_extension)]
    async fn pay_in_a_known_state(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        for route in [post(pay), post(pay_in_a_known_state)] {
            let handler = CountingHandler::new();
            let router = |engine| {
                let router = Router::new().route("/pay", route.clone());
                let router = router.layer(Extension(Ledger("the layer's ledger")));
                router.layer(Extension(engine)).with_state(app(&handler))
            };
            finds("the layer's ledger knows attempt 1", &handler, router).await;
        }
    });
}

#[test]
fn a_recovery_function_of_the_crash_alone_is_asked_whether_the_state_is_named_or_not() {
    #[idempotent(on_crash = by_itself)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    #[idempotent(state = App, on_crash = by_itself)]
    async fn pay_in_a_known_state(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        finds_in_an_app!("the function knows attempt 1", pay);
        finds_in_an_app!("the function knows attempt 1", pay_in_a_known_state);
    });
}

#[test]
fn a_route_without_a_recovery_function_asks_the_engines_also_in_a_known_state() {
    #[idempotent(state = App)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let router = Router::new().route("/pay", post(pay));
            router.layer(Extension(engine)).with_state(app(&handler))
        };
        let store = crashed(&handler, &payment(), router).await;
        let policy = Policy::new().on_crash(OnCrash::Recover(|crash| Box::pin(by_itself(crash))));
        let server = Server::start(router(engine_with(&store, policy))).await;
        let answer = server.send(&payment()).await;
        assert_eq!(answer.text(), "the function knows attempt 1");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn a_handler_without_arguments_has_a_recovery_function_with_the_state() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    #[idempotent(state = App, on_crash = by_state)]
    async fn pay() {
        STARTED.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>().await;
    }
    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let router = Router::new().route("/pay", post(pay));
            router.layer(Extension(engine)).with_state(app(&handler))
        };
        let (store, started) = (MemoryStore::new(), || STARTED.load(Ordering::SeqCst));
        let dying = engine(&store);
        send_in_task(&router(dying.clone()), &payment());
        crate::support::wait_until(|| started() == 1).await;
        assert_eq!(dying.shutdown(Duration::ZERO).await.unknown, 1);
        let answer = retry(&store, &payment(), router).await;
        assert_eq!(answer.text(), "the app's ledger knows attempt 1");
        assert_eq!(started(), 1);
    });
}

#[test]
fn the_state_is_that_of_the_router_that_has_the_route() {
    #[derive(Clone)]
    struct Nested {
        outer: App,
        ledger: Ledger,
    }
    impl FromRef<Nested> for Ledger {
        fn from_ref(nested: &Nested) -> Self {
            nested.ledger.clone()
        }
    }
    #[idempotent(state = Nested, on_crash = by_substate)]
    async fn pay(State(nested): State<Nested>, request: Request) -> Response {
        nested.outer.handler.call(request).await
    }
    #[idempotent(state = App, on_crash = by_substate)]
    async fn pay_outside(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        for (path, owner) in [
            ("/nested/pay", "the nested ledger"),
            ("/pay", "the app's ledger"),
        ] {
            let handler = CountingHandler::new();
            let router = |engine| {
                let nested = Nested {
                    outer: app(&handler),
                    ledger: Ledger("the nested ledger"),
                };
                let nested = Router::new().route("/pay", post(pay)).with_state(nested);
                Router::new()
                    .route("/pay", post(pay_outside))
                    .nest("/nested", nested)
                    .layer(Extension(engine))
                    .with_state(app(&handler))
            };
            let request = TestRequest::post(path).key("k");
            let store = crashed(&handler, &request, router).await;
            let answer = retry(&store, &request, router).await;
            assert_eq!(answer.text(), format!("{owner} knows attempt 1"));
        }
    });
}

#[test]
fn handlers_in_impl_blocks_and_generic_ones_have_recovery_functions_with_the_state() {
    trait Bank: Clone + Send + Sync + 'static {
        fn ledger(&self) -> &'static str;
        fn handler(&self) -> CountingHandler;
    }
    impl Bank for App {
        fn ledger(&self) -> &'static str {
            self.ledger.0
        }
        fn handler(&self) -> CountingHandler {
            self.handler.clone()
        }
    }

    struct Api;
    impl Api {
        const NAME: &'static str = "Api";

        #[idempotent(state = App, on_crash = Self::find_out, inner = Self::pay_inner)]
        async fn pay(State(app): State<App>, request: Request) -> Response {
            app.handler.call(request).await
        }

        async fn find_out(crash: Crash, State(app): State<App>) -> Recovery {
            tokio::task::yield_now().await;
            found(&format!("{} of {}", app.ledger.0, Self::NAME), &crash)
        }
    }

    struct GenericApi<B>(B);
    impl<B: Bank> GenericApi<B> {
        #[idempotent(state = B, on_crash = Self::find_out, inner = Self::pay_inner)]
        async fn pay(State(bank): State<B>, request: Request) -> Response {
            bank.handler().call(request).await
        }

        async fn find_out(crash: Crash, State(bank): State<B>) -> Recovery {
            tokio::task::yield_now().await;
            found(bank.ledger(), &crash)
        }
    }

    #[idempotent(state = B, on_crash = find_out::<B, 3>)]
    async fn pay<B: Bank, const N: usize>(State(bank): State<B>, request: Request) -> Response {
        bank.handler().call(request).await
    }

    async fn find_out<B: Bank, const N: usize>(crash: Crash, State(bank): State<B>) -> Recovery {
        found(&format!("{} ({N})", bank.ledger()), &crash)
    }

    #[idempotent(state = App, on_crash = find_out::<App, N>, inner = beside)]
    async fn pay_app<const N: usize>(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }

    in_real_time(async {
        finds_in_an_app!("the app's ledger of Api knows attempt 1", Api::pay);
        finds_in_an_app!("the app's ledger knows attempt 1", GenericApi::<App>::pay);
        finds_in_an_app!("the app's ledger (3) knows attempt 1", pay::<App, 1>);
        finds_in_an_app!("the app's ledger (7) knows attempt 1", pay_app::<7>);
    });
}

/// Extracts the header that it takes away, and leaves something behind.
struct Taken(Option<String>);

impl<S: Sync> FromRequestParts<S> for Taken {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let taken = parts.headers.remove("x-mark");
        parts.extensions.insert(Ledger("left behind"));
        Ok(Self(taken.map(|mark| mark.to_str().unwrap().to_owned())))
    }
}

#[test]
fn extractors_see_the_retry_and_leave_it_as_it_is() {
    #[allow(clippy::too_many_arguments, reason = "one of each kind")]
    async fn by_all(
        crash: Crash,
        State(app): State<App>,
        method: Method,
        OriginalUri(uri): OriginalUri,
        path: MatchedPath,
        Path(order): Path<u32>,
        RawQuery(query): RawQuery,
        Taken(mark): Taken,
        headers: HeaderMap,
        left: Extension<Ledger>,
        execution: Execution,
        optional: Option<Execution>,
    ) -> Recovery {
        // One after the other, on one head, as for a handler.
        assert_eq!(mark.as_deref(), Some("m"));
        assert!(!headers.contains_key("x-mark"));
        assert_eq!(left.0.0, "left behind");
        // The function runs under a lease of its own, with the keys of the record.
        assert_eq!((crash.attempt(), execution.attempt()), (1, 2));
        assert!(!execution.lease_lost());
        assert_eq!(execution.key().expose(), "k");
        assert_eq!(
            execution.downstream_key("bank"),
            crash.downstream_key("bank")
        );
        assert_eq!(optional.unwrap().attempt(), 2);
        // What it is shown of the retry is what the client sent.
        let retry = crash.request();
        assert_eq!(retry.headers()["x-mark"], "m");
        assert!(retry.extensions().get::<Ledger>().is_none());
        assert!(Execution::from_extensions(retry.extensions()).is_none());
        assert_eq!(&retry.body()[..], b"100");
        let of = format!(
            "{} {method} {} {uri} {order} {}",
            app.ledger.0,
            path.as_str(),
            query.unwrap()
        );
        *SEEN.lock().unwrap() = of;
        Recovery::NotExecuted
    }
    static SEEN: Mutex<String> = Mutex::new(String::new());

    #[idempotent(state = App, on_crash = by_all)]
    async fn pay(State(app): State<App>, Taken(mark): Taken, request: Request) -> Response {
        assert_eq!(mark.as_deref(), Some("m"));
        app.handler.call(request).await
    }

    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let orders = Router::new().route("/{order}/pay", post(pay));
            Router::new()
                .nest("/orders", orders)
                .layer(Extension(engine))
                .with_state(app(&handler))
        };
        let request = TestRequest::post("/orders/7/pay?a=b").key("k");
        let request = request.header("x-mark", "m").body("100");
        let store = crashed(&handler, &request, router).await;

        // Then the handler executes with the state and the whole retry, too.
        let answer = retry(&store, &request, router).await;
        answer.assert_charge(2);
        assert_eq!(handler.attempts(), [1, 2]);
        let expected = "the app's ledger POST /orders/{order}/pay /orders/7/pay?a=b 7 a=b";
        assert_eq!(*SEEN.lock().unwrap(), expected);
    });
}

#[test]
fn an_extractor_that_rejects_the_retry_leaves_the_outcome_unknown_until_it_accepts_one() {
    #[idempotent(on_crash = by_extension)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    #[idempotent(state = App, on_crash = by_extension)]
    async fn pay_in_a_known_state(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    for route in [post(pay), post(pay_in_a_known_state)] {
        with_paused_clock(async {
            // Given a router whose layer with the ledger was forgotten.
            let (log, _guard) = Log::collect();
            let handler = CountingHandler::new();
            let router = |engine| {
                let router = Router::new().route("/pay", route.clone());
                router.layer(Extension(engine)).with_state(app(&handler))
            };
            let store = crashed(&handler, &payment(), router).await;

            // When retries arrive, then nobody knows what happened, and the log says why.
            for _ in 0..2 {
                let answer = send(&router(engine(&store)), &payment()).await;
                answer.assert_problem(409, "outcome_unknown");
            }
            let text = log.text();
            let lines = text.lines().filter(|line| line.contains("ERROR"));
            let lines: Vec<_> = lines.filter(|line| line.contains("rejected")).collect();
            assert_eq!(lines.len(), 2, "{text}");
            for line in lines {
                assert!(line.contains("an extractor of the recovery function"));
                assert!(line.contains("Extension<"), "{line}");
                assert!(line.contains("recovery_arguments::Ledger>"), "{line}");
                assert!(line.contains("status=500"), "{line}");
            }

            // When a deploy adds the layer, then the next retry finds out.
            let router = router(engine(&store)).layer(Extension(Ledger("a late ledger")));
            let answer = send(&router, &payment()).await;
            assert_eq!(answer.text(), "a late ledger knows attempt 3");
            assert_eq!(handler.starts(), 1);
        });
    }
}

#[test]
fn a_recovery_function_can_take_the_rejection_of_an_extractor() {
    async fn by_result(
        crash: Crash,
        ledger: Result<Extension<Ledger>, axum::extract::rejection::ExtensionRejection>,
        optional: Option<Extension<Ledger>>,
    ) -> Recovery {
        assert!(optional.is_none());
        match ledger {
            Ok(Extension(ledger)) => found(ledger.0, &crash),
            Err(_) => found("nobody", &crash),
        }
    }
    #[idempotent(on_crash = by_result)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        finds_in_an_app!("nobody knows attempt 1", pay);
    });
}

/// Panics as the header of the retry says.
struct Panicking;

impl FromRequestParts<App> for Panicking {
    type Rejection = StatusCode;

    fn from_request_parts(
        parts: &mut Parts,
        _: &App,
    ) -> impl Future<Output = Result<Self, StatusCode>> + Send {
        let when = parts.headers.get("x-panic").cloned();
        assert!(
            when.as_ref().is_none_or(|when| when != "at once"),
            "as the test wants it"
        );
        async move {
            tokio::task::yield_now().await;
            assert!(
                when.is_none_or(|when| when != "later"),
                "as the test wants it"
            );
            Ok(Self)
        }
    }
}

#[test]
fn an_extractor_that_panics_leaves_the_outcome_unknown_until_it_does_not() {
    async fn by_a_panic(crash: Crash, state: State<App>, _: Panicking) -> Recovery {
        by_state(crash, state).await
    }
    #[idempotent(state = App, on_crash = by_a_panic)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    with_paused_clock(async {
        let (log, _guard) = Log::collect();
        let handler = CountingHandler::new();
        let router = |engine| {
            let router = Router::new().route("/pay", post(pay));
            router.layer(Extension(engine)).with_state(app(&handler))
        };
        let store = crashed(&handler, &payment(), router).await;
        for when in ["at once", "later"] {
            let request = payment().header("x-panic", when);
            let answer = send(&router(engine(&store)), &request).await;
            answer.assert_problem(409, "outcome_unknown");
        }
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("ERROR"));
        let lines: Vec<_> = lines.filter(|line| line.contains("panicked")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        for line in lines {
            assert!(line.contains("an extractor of the recovery function panicked"));
            assert!(line.contains("recovery_arguments::Panicking"), "{line}");
        }
        let answer = send(&router(engine(&store)), &payment()).await;
        assert_eq!(answer.text(), "the app's ledger knows attempt 3");
        assert_eq!(handler.starts(), 1);
    });
}

/// The state's own code: a clone or a destructor that panics once the test wants it.
struct Fragile(Arc<AtomicBool>);

impl<S: Sync> FromRequestParts<S> for Fragile {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        let breaks = parts.extensions.get::<Arc<AtomicBool>>();
        Ok(Self(Arc::clone(breaks.ok_or(StatusCode::IM_A_TEAPOT)?)))
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.0.load(Ordering::SeqCst), "as the test wants it");
    }
}

#[test]
fn an_argument_whose_destructor_panics_leaves_the_outcome_unknown() {
    async fn by_fragile(crash: Crash, fragile: Fragile) -> Recovery {
        drop(fragile);
        found("nobody", &crash)
    }
    #[idempotent(on_crash = by_fragile)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    with_paused_clock(async {
        let (handler, breaks) = (CountingHandler::new(), Arc::new(AtomicBool::new(true)));
        let router = |engine| {
            let router = Router::new().route("/pay", post(pay));
            let router = router.layer(Extension(Arc::clone(&breaks)));
            router.layer(Extension(engine)).with_state(app(&handler))
        };
        let store = crashed(&handler, &payment(), router).await;
        let answer = send(&router(engine(&store)), &payment()).await;
        answer.assert_problem(409, "outcome_unknown");
        breaks.store(false, Ordering::SeqCst);
        let answer = send(&router(engine(&store)), &payment()).await;
        assert_eq!(answer.text(), "nobody knows attempt 2");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn an_extractor_that_takes_longer_than_a_lease_does_not_let_the_handler_execute() {
    struct Slow;
    impl FromRequestParts<App> for Slow {
        type Rejection = StatusCode;

        async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, StatusCode> {
            if parts.headers.contains_key("x-slow") {
                tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
            }
            Ok(Self)
        }
    }
    async fn not_executed(_: Crash, _: Slow) -> Recovery {
        Recovery::NotExecuted
    }
    #[idempotent(state = App, on_crash = not_executed)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let router = Router::new().route("/pay", post(pay));
            router.layer(Extension(engine)).with_state(app(&handler))
        };
        let store = crashed(&handler, &payment(), router).await;
        let slow = payment().header("x-slow", "1");
        let slow = send_in_task(&router(engine(&store)), &slow);
        advance(LEASE * 2).await;
        slow.await.unwrap().assert_problem(503, "overloaded");
        assert_eq!(handler.starts(), 1);
        let answer = send(&router(engine(&store)), &payment()).await;
        answer.assert_charge(2);
    });
}

/// A handler behind the layer.
async fn plain(State(app): State<App>, request: Request) -> Response {
    app.handler.call(request).await
}

#[test]
fn the_recovery_function_of_a_layer_may_own_what_it_asks() {
    in_real_time(async {
        // Before and after a policy, and whatever that says itself.
        for policy in [
            Policy::new(),
            Policy::new().ttl(Duration::from_secs(60)),
            Policy::new().on_crash(OnCrash::Refuse),
            Policy::new().on_crash(OnCrash::Retry),
            Policy::new().on_crash(OnCrash::Recover(|crash| Box::pin(by_itself(crash)))),
        ] {
            for policy_first in [true, false] {
                let handler = CountingHandler::new();
                let ledger = Ledger("the layer's own ledger");
                let router = |engine| {
                    let ledger = ledger.clone();
                    let recover = move |crash: Crash| {
                        let ledger = ledger.clone();
                        async move { found(ledger.0, &crash) }
                    };
                    let layer = IdempotencyLayer::new(engine);
                    let layer = if policy_first {
                        layer.policy(policy.clone()).recover(recover)
                    } else {
                        layer.recover(recover).policy(policy.clone())
                    };
                    let router = Router::new().route("/pay", post(plain));
                    router.route_layer(layer).with_state(app(&handler))
                };
                finds("the layer's own ledger knows attempt 1", &handler, router).await;
            }
        }
    });
}

#[test]
fn a_layers_recovery_function_that_finds_no_effect_lets_the_service_execute() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let layer = IdempotencyLayer::new(engine);
            let layer = layer.recover(|_| async { Recovery::NotExecuted });
            let router = Router::new().route("/pay", post(plain));
            router.route_layer(layer).with_state(app(&handler))
        };
        let store = crashed(&handler, &payment(), router).await;
        retry(&store, &payment(), router).await.assert_charge(2);
        assert_eq!(handler.attempts(), [1, 2]);
    });
}

#[test]
fn a_layers_recovery_function_that_panics_leaves_the_outcome_unknown() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let layer = IdempotencyLayer::new(engine).recover(|crash| {
                let mark = crash.request().headers().get("x-panic").cloned();
                assert!(mark.is_none(), "as the test wants it");
                async move { found("the layer", &crash) }
            });
            let router = Router::new().route("/pay", post(plain));
            router.route_layer(layer).with_state(app(&handler))
        };
        let store = crashed(&handler, &payment(), router).await;
        let panics = payment().header("x-panic", "1");
        retry(&store, &panics, router)
            .await
            .assert_problem(409, "outcome_unknown");
        let answer = retry(&store, &payment(), router).await;
        assert_eq!(answer.text(), "the layer knows attempt 2");
        assert_eq!(handler.starts(), 1);
    });
}

#[test]
fn around_a_handler_with_a_recovery_function_the_layers_is_asked() {
    #[idempotent(state = App, on_crash = by_state)]
    async fn pay(State(app): State<App>, request: Request) -> Response {
        app.handler.call(request).await
    }
    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let layer = IdempotencyLayer::new(engine);
            let layer = layer.recover(|crash| async move { found("the layer", &crash) });
            let router = Router::new().route("/pay", post(pay));
            router.route_layer(layer).with_state(app(&handler))
        };
        finds("the layer knows attempt 1", &handler, router).await;
    });
}

/// A recovery function without the extractors of axum, which a policy names, finds what it needs in the retry.
#[test]
fn the_recovery_function_of_a_policy_finds_what_layers_inserted() {
    in_real_time(async {
        let handler = CountingHandler::new();
        let router = |engine| {
            let policy = Policy::new().on_crash(OnCrash::Recover(|crash| {
                let ledger = crash.request().extensions().get::<Ledger>().cloned();
                Box::pin(async move { found(ledger.unwrap().0, &crash) })
            }));
            let layer = IdempotencyLayer::new(engine).policy(policy);
            let router = Router::new().route("/pay", post(plain)).route_layer(layer);
            let router = router.layer(Extension(Ledger("an extension")));
            router.with_state(app(&handler))
        };
        finds("an extension knows attempt 1", &handler, router).await;
    });
}
