//! Who calls: found before everything else, on every request with a key (DESIGN.md, sections 3 and 6; invariant I8).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{FromRef, FromRequestParts, Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use http::{StatusCode, request::Parts};
use idempotent_runtime::{
    Builder, Caller, Idempotency, IdempotencyLayer, MemoryStore, OnCrash, Policy, Scope,
    idempotent, scope,
};
use tokio::task::yield_now;

use crate::support::{
    Conn, CountingHandler, FaultyStore, Operation, Server, TestRequest, advance, in_real_time,
    poll_once, run_ready_tasks, send, send_in_task, stream, with_each_adapter, with_paused_clock,
};

/// Whose token is whose, and how often somebody asked.
#[derive(Clone, Default)]
struct Tokens(Arc<Mutex<HashMap<String, String>>>, Arc<AtomicUsize>);

impl Tokens {
    fn issue(&self, token: &str, account: &str) {
        self.0.lock().unwrap().insert(token.into(), account.into());
    }

    fn revoke(&self, token: &str) {
        self.0.lock().unwrap().remove(token);
    }

    fn asked(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct App {
    handler: CountingHandler,
    tokens: Tokens,
    engine: Idempotency,
}

impl FromRef<App> for Idempotency {
    fn from_ref(app: &App) -> Self {
        app.engine.clone()
    }
}

/// What the extractor leaves for others.
#[derive(Clone)]
struct Account(String);

impl Caller for Account {
    fn scope(&self) -> Scope {
        Scope::new(&self.0)
    }
}

struct User(Account);

impl Caller for User {
    fn scope(&self) -> Scope {
        self.0.scope()
    }
}

impl FromRequestParts<App> for User {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        app.tokens.1.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        let token = parts.headers.get("authorization");
        let token = token.and_then(|token| token.to_str().ok()).unwrap_or("");
        assert_ne!(token, "Bearer panic", "as the test wants it");
        let account = app.tokens.0.lock().unwrap().get(token).cloned();
        let Some(account) = account.map(Account) else {
            let challenge = [
                ("www-authenticate", "Bearer"),
                ("idempotent-replay", "true"),
            ];
            return Err((
                StatusCode::UNAUTHORIZED,
                challenge,
                stream(["who ", "are you?"]),
            )
                .into_response());
        };
        parts.extensions.insert(account.clone());
        Ok(Self(account))
    }
}

/// The handler extracts the caller once more, and what it left.
async fn charge(
    state: State<App>,
    user: User,
    Extension(account): Extension<Account>,
    request: Request,
) -> Response {
    assert_eq!(user.0.0, account.0);
    state.0.handler.call(request).await
}

#[idempotent(caller = User)]
async fn by_attribute(
    state: State<App>,
    user: User,
    account: Extension<Account>,
    request: Request,
) -> Response {
    charge(state, user, account, request).await
}

#[idempotent(caller = User, engine = State<Idempotency>, state = App, inner = plain)]
async fn by_attribute_with_state(
    state: State<App>,
    user: User,
    account: Extension<Account>,
    request: Request,
) -> Response {
    charge(state, user, account, request).await
}

#[idempotent]
async fn by_engine(
    state: State<App>,
    user: User,
    account: Extension<Account>,
    request: Request,
) -> Response {
    charge(state, user, account, request).await
}

/// Every way to name the caller.
#[derive(Clone, Copy, Debug)]
enum Way {
    Attribute,
    AttributeWithState,
    Layer,
    Builder,
}

const WAYS: [Way; 4] = [
    Way::Attribute,
    Way::AttributeWithState,
    Way::Layer,
    Way::Builder,
];

impl Way {
    /// An app whose engine has these settings.
    fn app(self, builder: Builder, handler: &CountingHandler, tokens: &Tokens) -> Router {
        let of = |engine: &Idempotency| App {
            handler: handler.clone(),
            tokens: tokens.clone(),
            engine: engine.clone(),
        };
        let builder = match self {
            Self::Builder => {
                let other = of(&Idempotency::builder().build().unwrap());
                builder.caller(scope::extractor::<User, App>(other))
            }
            _ => builder,
        };
        let engine = builder.build().unwrap();
        let (app, router) = (of(&engine), Router::new());
        let router = match self {
            Self::Attribute => router.route("/pay", post(by_attribute)),
            Self::AttributeWithState => router.route("/pay", post(by_attribute_with_state)),
            Self::Builder => router.route("/pay", post(by_engine)),
            Self::Layer => router.route("/pay", post(charge)).route_layer(
                IdempotencyLayer::new(engine.clone())
                    .caller(scope::extractor::<User, App>(app.clone())),
            ),
        };
        router.layer(Extension(engine)).with_state(app)
    }
}

/// Runs a scenario for every way to name the caller, with tokens of alice and bob.
fn each_way(scenario: impl AsyncFn(Way, Tokens)) {
    for way in WAYS {
        let tokens = Tokens::default();
        tokens.issue("Bearer alice", "alice");
        tokens.issue("Bearer bob", "bob");
        with_paused_clock(scenario(way, tokens));
    }
}

fn by(token: &str) -> TestRequest {
    TestRequest::payment("k").header("authorization", token)
}

/// How often the store was asked for a key. All else that it is asked follows from that.
fn asked(store: &FaultyStore) -> usize {
    store.calls(Operation::Acquire) + store.calls(Operation::Get)
}

/// Asserts that this request is not let in, and that the store does not hear of it.
async fn assert_not_let_in(app: &Router, store: &FaultyStore, request: &TestRequest) {
    let before = asked(store);
    let answer = send(app, request).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.text(), "who are you?");
    assert_eq!(answer.lines("www-authenticate"), ["Bearer"]);
    assert!(!answer.headers.contains_key("idempotent-replay"));
    assert_eq!(asked(store), before, "{request:?}");
}

#[test]
fn a_revoked_token_gets_its_401_and_never_a_stored_response() {
    each_way(async |way, tokens| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let builder = Idempotency::builder().store(store.clone());
        let app = way.app(builder, &handler, &tokens);
        let alice = by("Bearer alice");
        // Given an execution in flight, then its outcome; when the token is revoked in between.
        handler.close_gate();
        let first = send_in_task(&app, &alice);
        handler.started(1).await;
        tokens.revoke("Bearer alice");
        for request in [&alice, &alice.clone().body("{}")] {
            assert_not_let_in(&app, &store, request).await;
        }
        handler.open_gate();
        first.await.unwrap().assert_charge(1);

        // Then neither a replay nor a mismatch is shown, and nothing is executed.
        for request in [&alice, &alice.clone().body("{}")] {
            assert_not_let_in(&app, &store, request).await;
        }
        assert_not_let_in(&app, &store, &TestRequest::payment("k")).await;
        assert_not_let_in(&app, &store, &by("Bearer forged")).await;

        // And a renewed token is the same caller's.
        tokens.issue("Bearer renewed", "alice");
        send(&app, &by("Bearer renewed"))
            .await
            .assert_replay_of_charge(1);
        assert_eq!(handler.starts(), 1, "{way:?}");
    });
}

#[test]
fn a_revoked_token_learns_nothing_of_a_tombstone_or_a_crash() {
    each_way(async |way, tokens| {
        let handler = CountingHandler::responding(|_| vec![b'x'; 2 << 20].into_response());
        let store = FaultyStore::new();
        let app = way.app(
            Idempotency::builder().store(store.clone()),
            &handler,
            &tokens,
        );
        send(&app, &by("Bearer alice")).await;
        assert_not_let_in(&app, &store, &by("Bearer forged")).await;
        send(&app, &by("Bearer alice"))
            .await
            .assert_problem(409, "response_not_stored");

        // Given an execution of another process that crashed, on a route that would execute again.
        let crashed = FaultyStore::new();
        handler.close_gate();
        let there = way.app(
            Idempotency::builder().store(crashed.clone()),
            &handler,
            &tokens,
        );
        let left = send_in_task(&there, &by("Bearer alice"));
        handler.started(2).await;
        advance(Duration::from_secs(16 * 60)).await;
        left.abort();
        let retry = Idempotency::builder()
            .store(crashed.clone())
            .policy(Policy::new().on_crash(OnCrash::Retry));
        let here = way.app(retry, &handler, &tokens);
        let starts = handler.starts();
        assert_not_let_in(&here, &crashed, &by("Bearer forged")).await;
        assert_eq!(handler.starts(), starts);
    });
}

#[test]
fn a_rejected_request_leaves_the_key_free() {
    each_way(async |way, tokens| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = way.app(
            Idempotency::builder().store(store.clone()),
            &handler,
            &tokens,
        );
        assert_not_let_in(&app, &store, &by("Bearer forged")).await;
        assert_eq!(store.keys(), []);
        // The caller comes before the key is read, and before the body is.
        assert_not_let_in(&app, &store, &by("Bearer forged").key("second")).await;
        assert_not_let_in(&app, &store, &by("Bearer forged").body(vec![b'x'; 4 << 20])).await;
        send(&app, &by("Bearer alice").key("second"))
            .await
            .assert_problem(400, "invalid_key");
        send(&app, &by("Bearer alice")).await.assert_charge(1);
    });
}

#[test]
fn the_same_key_of_another_caller_is_another_key() {
    each_way(async |way, tokens| {
        let handler = CountingHandler::new();
        let app = way.app(Idempotency::builder(), &handler, &tokens);
        send(&app, &by("Bearer alice")).await.assert_charge(1);
        send(&app, &by("Bearer bob")).await.assert_charge(2);
        send(&app, &by("Bearer alice"))
            .await
            .assert_replay_of_charge(1);
        send(&app, &by("Bearer bob"))
            .await
            .assert_replay_of_charge(2);
    });
}

#[test]
fn the_caller_is_asked_once_for_each_request_with_a_key() {
    each_way(async |way, tokens| {
        let handler = CountingHandler::new();
        let app = way.app(Idempotency::builder(), &handler, &tokens);
        // The handler extracts it, too.
        send(&app, &by("Bearer alice")).await.assert_charge(1);
        assert_eq!(tokens.asked(), 2, "{way:?}");
        send(&app, &by("Bearer alice"))
            .await
            .assert_replay_of_charge(1);
        assert_eq!(tokens.asked(), 3);
        // Without a key only the handler does.
        let mut without = by("Bearer alice");
        without.headers.remove("idempotency-key");
        send(&app, &without).await.assert_charge(2);
        assert_eq!(tokens.asked(), 4);
    });
}

#[test]
fn a_panic_of_the_caller_step_is_answered_and_claims_nothing() {
    each_way(async |way, tokens| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = way.app(
            Idempotency::builder().store(store.clone()),
            &handler,
            &tokens,
        );
        for _ in 0..2 {
            let answer = send(&app, &by("Bearer panic")).await;
            answer.assert_problem(500, "handler_panicked");
            assert_eq!(answer.json()["action"], "retry_same_key");
        }
        assert_eq!((store.keys(), handler.starts()), (vec![], 0));
        send(&app, &by("Bearer alice")).await.assert_charge(1);
        // Nor does it touch what is stored.
        send(&app, &by("Bearer panic"))
            .await
            .assert_problem(500, "handler_panicked");
        send(&app, &by("Bearer alice"))
            .await
            .assert_replay_of_charge(1);
    });
}

#[test]
fn a_caller_function_that_panics_before_its_future_is_answered_and_claims_nothing() {
    type Found = std::future::Ready<Result<(Parts, Scope), Response>>;
    with_each_adapter(async |adapter| {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let builder = Idempotency::builder().store(store.clone());
        let builder = builder.caller(|_: Parts| -> Found { panic!("as the test wants it") });
        let app = adapter.app(&builder.build().unwrap(), &handler);
        for _ in 0..2 {
            let answer = send(&app, &by("Bearer alice")).await;
            answer.assert_problem(500, "handler_panicked");
            assert_eq!(answer.json()["action"], "retry_same_key");
        }
        assert_eq!((store.keys(), handler.starts()), (vec![], 0));
    });
}

#[test]
fn a_client_that_leaves_before_its_caller_is_known_claims_nothing() {
    each_way(async |way, tokens| {
        use tower::ServiceExt;
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let app = way.app(
            Idempotency::builder().store(store.clone()),
            &handler,
            &tokens,
        );
        let mut request = Box::pin(app.clone().oneshot(by("Bearer alice").request()));
        assert!(poll_once(&mut request).await.is_none());
        assert_eq!(tokens.asked(), 1);
        drop(request);
        run_ready_tasks().await;
        assert_eq!((asked(&store), handler.starts()), (0, 0));
        send(&app, &by("Bearer alice")).await.assert_charge(1);
    });
}

#[test]
fn a_waiting_duplicate_was_let_in_before_it_waits() {
    each_way(async |way, tokens| {
        let handler = CountingHandler::new();
        let app = way.app(Idempotency::builder(), &handler, &tokens);
        handler.close_gate();
        let first = send_in_task(&app, &by("Bearer alice"));
        handler.started(1).await;
        let waiter = send_in_task(&app, &by("Bearer alice"));
        let stranger = send_in_task(&app, &by("Bearer forged"));
        run_ready_tasks().await;
        // The stranger does not wait for an answer that is not its own.
        assert_eq!(stranger.await.unwrap().status, 401);
        handler.open_gate();
        first.await.unwrap().assert_charge(1);
        waiter.await.unwrap().assert_replay_of_charge(1);
    });
}

#[test]
fn over_real_connections_a_rejection_arrives_whole_and_the_connection_goes_on() {
    in_real_time(async {
        for way in WAYS {
            let tokens = Tokens::default();
            tokens.issue("Bearer alice", "alice");
            let handler = CountingHandler::new();
            let app = way.app(Idempotency::builder(), &handler, &tokens);
            let server = Server::start(app).await;
            let mut conn = Conn::open(server.address).await;
            for (token, expected) in [
                ("Bearer alice", "charge 1"),
                ("Bearer forged", "who are you?"),
                ("Bearer alice", "charge 1"),
            ] {
                conn.send(&by(token).wire()).await;
                assert_eq!(conn.answer().await.text(), expected, "{way:?}");
            }
            tokens.revoke("Bearer alice");
            conn.send(&by("Bearer alice").wire()).await;
            assert_eq!(conn.answer().await.status, 401);
            assert_eq!(handler.starts(), 1);
        }
    });
}

#[idempotent(caller = User)]
async fn trusting(State(app): State<App>, request: Request) -> Response {
    app.handler.call(request).await
}

#[test]
fn inside_of_a_layer_the_attributes_caller_is_asked_before_the_handler() {
    with_paused_clock(async {
        // Given a layer that knows no caller, around a handler that leaves it to the attribute.
        let (handler, tokens) = (CountingHandler::new(), Tokens::default());
        tokens.issue("Bearer alice", "alice");
        let engine = Idempotency::builder().build().unwrap();
        let state = App {
            handler: handler.clone(),
            tokens: tokens.clone(),
            engine: engine.clone(),
        };
        let app = Router::new()
            .route("/pay", post(trusting))
            .route_layer(IdempotencyLayer::new(engine))
            .with_state(state);
        let answer = send(&app, &by("Bearer forged")).await;
        assert_eq!((answer.status.as_u16(), handler.starts()), (401, 0));
        send(&app, &by("Bearer alice")).await.assert_charge(1);
        assert_eq!(tokens.asked(), 2);
    });
}

#[idempotent(caller = Extension<Account>)]
async fn of_the_layer(State(app): State<App>, request: Request) -> Response {
    app.handler.call(request).await
}

#[test]
fn a_caller_that_no_layer_inserted_is_an_error_of_the_server() {
    with_paused_clock(async {
        let (handler, store) = (CountingHandler::new(), FaultyStore::new());
        let engine = Idempotency::builder().store(store.clone()).build().unwrap();
        let state = App {
            handler: handler.clone(),
            tokens: Tokens::default(),
            engine: engine.clone(),
        };
        let app = Router::new()
            .route("/pay", post(of_the_layer))
            .layer(Extension(engine))
            .with_state(state);
        let answer = send(&app, &TestRequest::payment("k")).await;
        assert_eq!(answer.status, 500);
        assert_eq!((store.keys(), handler.starts()), (vec![], 0));
        // With it, its scope counts.
        for (account, n) in [("alice", 1), ("bob", 2)] {
            let app = app.clone().layer(Extension(Account(account.into())));
            send(&app, &TestRequest::payment("k"))
                .await
                .assert_charge(n);
        }
    });
}

/// A caller that is generic, in a handler that is.
struct Tagged<T>(std::marker::PhantomData<T>);

impl<T: Send + Sync + 'static> FromRequestParts<App> for Tagged<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        User::from_request_parts(parts, app).await?;
        Ok(Self(std::marker::PhantomData))
    }
}

impl<T> Caller for Tagged<T> {
    fn scope(&self) -> Scope {
        Scope::new(std::any::type_name::<T>())
    }
}

#[idempotent(caller = (Tagged<T>, Extension<Account>), crate = idempotent_runtime)]
async fn generic<T: Send + Sync + 'static>(
    _: Tagged<T>,
    Extension(handler): Extension<CountingHandler>,
    request: Request,
) -> Response {
    handler.call(request).await
}

struct Api<T>(std::marker::PhantomData<T>);

impl<T: Send + Sync + 'static> Api<T> {
    #[idempotent(caller = User, inner = Self::pay_inner)]
    async fn pay(Extension(handler): Extension<CountingHandler>, request: Request) -> Response {
        handler.call(request).await
    }
}

#[idempotent(caller = User, state = App)]
async fn without_arguments() -> StatusCode {
    StatusCode::CREATED
}

#[test]
fn it_works_wherever_a_handler_works() {
    with_paused_clock(async {
        let (handler, tokens) = (CountingHandler::new(), Tokens::default());
        tokens.issue("Bearer alice", "alice");
        let engine = Idempotency::builder()
            .store(MemoryStore::new())
            .build()
            .unwrap();
        let state = App {
            handler: handler.clone(),
            tokens: tokens.clone(),
            engine: engine.clone(),
        };
        let routes = Router::new()
            .route("/generic", post(generic::<String>))
            .route("/method", post(Api::<u8>::pay))
            .route("/empty", post(without_arguments));
        let app = Router::new()
            .nest("/v1", routes.clone())
            .nest("/v2", routes)
            .layer(Extension(handler.clone()))
            .layer(Extension(engine))
            .with_state(state);
        for path in ["generic", "method", "empty"] {
            for version in ["v1", "v2"] {
                let request = TestRequest::post(format!("/{version}/{path}")).key("k");
                assert_eq!(send(&app, &request).await.status, 401, "{path}");
                let request = request.header("authorization", "Bearer alice");
                let first = send(&app, &request).await;
                assert_eq!((first.status.as_u16(), first.replayed()), (201, false));
                let again = send(&app, &request).await;
                assert_eq!((&again.body, again.replayed()), (&first.body, true));
            }
        }
        assert_eq!(handler.starts(), 4);
        // The plain functions take no caller.
        let request = Request::new(Body::empty());
        let answer = Api::<u8>::pay_inner(Extension(handler.clone()), request).await;
        assert_eq!(answer.status(), 201);
    });
}
