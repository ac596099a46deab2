//! Scopes: who finds them, and what follows where they find nobody (DESIGN.md, sections 6 and 8; invariant I8).

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::post,
};
use http::{HeaderValue, request::Parts};
use idempotent_runtime::{
    BuildError, Caller, Idempotency, IdempotencyLayer, Policy, Profile, Scope, idempotent, scope,
};

use crate::support::{
    Adapter, CountingHandler, FaultyStore, Log, Server, TestRequest, in_real_time, send,
    unprotected_app, with_each_adapter, with_paused_clock,
};

#[derive(Clone)]
struct Account(String);

impl Caller for Account {
    fn scope(&self) -> Scope {
        Scope::new(&self.0)
    }
}

/// Inserts the account that a token belongs to.
async fn authenticate(mut request: Request, next: Next) -> Response {
    if let Some(token) = request.headers().get("authorization") {
        let account = token.to_str().unwrap().trim_start_matches("Bearer ");
        let account = account.split('/').next().unwrap().to_owned();
        request.extensions_mut().insert(Account(account));
    }
    next.run(request).await
}

fn by(name: &str, value: &str) -> TestRequest {
    TestRequest::payment("k").header(name, value)
}

fn scoped() -> Idempotency {
    let builder = Idempotency::builder().scope(scope::extension::<Account>());
    builder.build().unwrap()
}

#[test]
fn a_layer_outside_of_the_authentication_shows_nobody_the_answer_of_another() {
    for (name, alice, bob) in [
        ("authorization", "Bearer alice", "Bearer bob"),
        ("cookie", "session=alice", "session=bob"),
        ("x-api-key", "alice", "bob"),
    ] {
        with_paused_clock(async move {
            // Given layers in the wrong order, so that the scope finds nobody.
            let (log, _guard) = Log::collect();
            let handler = CountingHandler::new();
            let app = unprotected_app(&handler)
                .layer(middleware::from_fn(authenticate))
                .layer(IdempotencyLayer::new(scoped()));
            send(&app, &by(name, alice)).await.assert_charge(1);

            // Then the credentials count.
            send(&app, &by(name, bob))
                .await
                .assert_problem(409, "caller_mismatch");
            send(&app, &by(name, alice))
                .await
                .assert_replay_of_charge(1);
            assert_eq!(handler.starts(), 1);
            // And the log says so once for this route.
            let said = log.text().matches("found no caller").count();
            assert_eq!(said, 1);
        });
    }
}

#[test]
fn a_layer_inside_of_the_authentication_scopes_by_the_account() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let app = unprotected_app(&handler)
            .layer(IdempotencyLayer::new(scoped()))
            .layer(middleware::from_fn(authenticate));
        send(&app, &by("authorization", "Bearer alice/1"))
            .await
            .assert_charge(1);
        send(&app, &by("authorization", "Bearer bob/1"))
            .await
            .assert_charge(2);
        // A renewed token is the same account's.
        send(&app, &by("authorization", "Bearer alice/2"))
            .await
            .assert_replay_of_charge(1);
    });
}

#[test]
fn a_scope_that_finds_nobody_is_said_once_for_each_route() {
    with_each_adapter(async |adapter| {
        let (log, _guard) = Log::collect();
        let engine = Idempotency::builder().scope(scope::header("x-account"));
        let app = adapter.app(&engine.build().unwrap(), &CountingHandler::new());
        for key in ["1", "2", "3"] {
            send(&app, &TestRequest::payment(key)).await;
        }
        send(
            &app,
            &TestRequest {
                method: http::Method::PUT,
                ..TestRequest::payment("1")
            },
        )
        .await;
        let text = log.text();
        assert_eq!(text.matches("found no caller").count(), 2, "{text}");
        // And not that no scope is set.
        assert!(!text.contains("no scope is set"));
    });
}

#[test]
fn require_caller_refuses_whom_no_scope_finds() {
    with_each_adapter(async |adapter| {
        let required = Policy::new().require_caller(true);
        for builder in [
            Idempotency::builder().scope(scope::header("x-account")),
            Idempotency::builder().scope(scope::extension::<Account>()),
            // Nobody could be found.
            Idempotency::builder(),
        ] {
            let (handler, store) = (CountingHandler::new(), FaultyStore::new());
            let builder = builder.store(store.clone()).policy(required.clone());
            let app = adapter.app(&builder.build().unwrap(), &handler);
            for request in [
                TestRequest::payment("k"),
                by("authorization", "Bearer alice"),
                // Before its key is looked at.
                TestRequest::payment("two words"),
                // Before its body is read.
                TestRequest::payment("k").body(vec![b'x'; 4 << 20]),
            ] {
                let answer = send(&app, &request).await;
                answer.assert_problem(401, "caller_unknown");
                assert_eq!(answer.json()["action"], "fix_request");
                assert_eq!(answer.lines("www-authenticate"), ["Idempotency-Caller"]);
            }
            assert_eq!((store.keys(), handler.starts()), (vec![], 0));
            // A request without a key passes by.
            let without = TestRequest::post("/pay").body("{}");
            assert_eq!(send(&app, &without).await.status, 201);
        }
        let builder = Idempotency::builder().scope(scope::header("x-account"));
        let engine = builder.policy(required).build().unwrap();
        let app = adapter.app(&engine, &CountingHandler::new());
        send(&app, &by("x-account", "a")).await.assert_charge(1);
    });
}

#[test]
fn the_challenge_is_the_services_own() {
    in_real_time(async {
        for profile in [Profile::Default, Profile::Ietf, Profile::Stripe] {
            let challenge = HeaderValue::from_static("Bearer realm=\"api\", Basic realm=\"api\"");
            let builder = Idempotency::builder().profile(profile).challenge(challenge);
            let engine = builder.policy(Policy::new().require_caller(true));
            let app = Adapter::Layer.app(&engine.build().unwrap(), &CountingHandler::new());
            let server = Server::start(app).await;
            let answer = server.send(&TestRequest::payment("\"k\"")).await;
            answer.assert_problem(401, "caller_unknown");
            assert_eq!(
                answer.lines("www-authenticate"),
                ["Bearer realm=\"api\", Basic realm=\"api\""]
            );
        }
        for nonsense in ["", " Bearer", "=", "\"Bearer\""] {
            let challenge = HeaderValue::from_str(nonsense).unwrap();
            let refused = Idempotency::builder().challenge(challenge.clone()).build();
            assert_eq!(refused.unwrap_err(), BuildError::Challenge { challenge });
        }
    });
}

#[idempotent(require_caller)]
async fn requiring(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

/// How often the expression below was evaluated.
static EVALUATED: AtomicUsize = AtomicUsize::new(0);

fn counted<F>(scope: F) -> F {
    EVALUATED.fetch_add(1, Ordering::SeqCst);
    scope
}

#[idempotent(scope = counted(scope::header("X-Account")))]
async fn by_header(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

#[idempotent(scope = scope::extension::<Account>(), require_caller)]
async fn by_extension(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

#[idempotent(scope = |parts| parts.headers.get("x-account").map(Scope::new), crate = idempotent_runtime)]
async fn by_closure(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

fn tenant(parts: &Parts) -> Option<Scope> {
    parts.headers.get("x-account").map(Scope::new)
}

#[idempotent(scope = tenant)]
async fn by_path(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

#[test]
fn the_attribute_takes_what_the_builder_takes() {
    with_paused_clock(async {
        let handler = CountingHandler::new();
        let engine = Idempotency::builder().build().unwrap();
        let app = Router::new()
            .route("/header", post(by_header))
            .route("/extension", post(by_extension))
            .route("/closure", post(by_closure))
            .route("/path", post(by_path))
            .route("/requiring", post(requiring))
            .layer(Extension(engine))
            .with_state(handler.clone());
        for path in ["header", "extension", "closure", "path"] {
            let mut charges = Vec::new();
            for account in ["a", "b", "a"] {
                let app = app.clone().layer(Extension(Account(account.into())));
                let request = TestRequest::post(format!("/{path}")).key("k");
                let answer = send(&app, &request.header("x-account", account)).await;
                assert_eq!(answer.status, 201, "{path}");
                charges.push(answer.body);
            }
            assert_ne!(charges[0], charges[1], "{path}");
            assert_eq!(charges[0], charges[2], "{path}");
        }
        assert_eq!(handler.starts(), 8);
        assert_eq!(EVALUATED.load(Ordering::SeqCst), 1);
        for path in ["/extension", "/requiring"] {
            let request = TestRequest::post(path).key("k").header("x-account", "a");
            send(&app, &request)
                .await
                .assert_problem(401, "caller_unknown");
        }
    });
}

#[test]
fn a_routes_scope_stays_within_the_caller_that_the_engine_found() {
    with_paused_clock(async {
        // Given an engine that lets in whoever has a token, and routes scoped by tenant.
        let handler = CountingHandler::new();
        let engine = Idempotency::builder()
            .caller(
                async |parts: Parts| match parts.headers.get("authorization") {
                    Some(token) => {
                        let scope = Scope::new(token);
                        Ok((parts, scope))
                    }
                    None => Err(http::Response::builder()
                        .status(401)
                        .body("who?".to_owned())
                        .unwrap()),
                },
            )
            .build()
            .unwrap();
        let app = Router::new()
            .route("/path", post(by_path))
            .layer(Extension(engine))
            .with_state(handler.clone());
        let request = |token: &str| {
            TestRequest::post("/path")
                .key("k")
                .header("authorization", token)
        };
        let of_tenant = |token| request(token).header("x-account", "a");
        send(&app, &of_tenant("one")).await.assert_charge(1);
        // Naming another's tenant shows nobody what was stored for that caller.
        send(&app, &of_tenant("two")).await.assert_charge(2);
        // One caller has as many namespaces as it has tenants.
        send(&app, &request("one").header("x-account", "b"))
            .await
            .assert_charge(3);
        send(&app, &of_tenant("one"))
            .await
            .assert_replay_of_charge(1);
        // Where the route's scope finds nobody, the caller counts.
        send(&app, &request("one")).await.assert_charge(4);
        send(&app, &request("two")).await.assert_charge(5);
        // And nobody is let in without a token.
        let stranger = TestRequest::post("/path").key("k").header("x-account", "a");
        let answer = send(&app, &stranger).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (401, "who?"));
    });
}

#[test]
fn a_caller_and_a_scope_of_one_engine_are_refused_at_set_up() {
    let find = async |parts: Parts| Ok::<_, http::Response<String>>((parts, Scope::new("a")));
    for builder in [
        Idempotency::builder().scope(tenant),
        Idempotency::builder().policy(Policy::new().scope(tenant)),
    ] {
        let refused = builder.caller(find).build().unwrap_err();
        assert_eq!(refused, BuildError::CallerAndScope);
        assert!(refused.to_string().contains("keep `caller`"));
    }
}

#[test]
#[should_panic(expected = "`scope::header` takes the name of a header")]
fn a_scope_by_a_header_that_cannot_exist_panics_where_it_is_made() {
    let _ = scope::header("x account");
}

#[test]
fn in_the_profile_of_stripe_a_connected_account_is_another_caller() {
    with_each_adapter(async |adapter| {
        for scoped in [false, true] {
            for name in ["stripe-account", "stripe-context"] {
                let handler = CountingHandler::new();
                let mut builder = Idempotency::builder().profile(Profile::Stripe);
                if scoped {
                    builder = builder.scope(scope::header("x-tenant"));
                }
                let app = adapter.app(&builder.build().unwrap(), &handler);
                let request = || by("authorization", "Bearer sk_1").header("x-tenant", "platform");
                let of = |account: &str| request().header(name, account);
                send(&app, &of("acct_1")).await.assert_charge(1);
                send(&app, &of("acct_2")).await.assert_charge(2);
                send(&app, &request()).await.assert_charge(3);
                assert_eq!(send(&app, &of("acct_1")).await.text(), "charge 1");
                assert_eq!(handler.starts(), 3);
                // The credentials still count.
                if !scoped {
                    let other = by("authorization", "Bearer sk_2").header(name, "acct_1");
                    send(&app, &other)
                        .await
                        .assert_problem(400, "caller_mismatch");
                }
            }
        }
    });
}
