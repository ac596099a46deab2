//! Every way in which axum calls a handler.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    BoxError, Extension, Router,
    error_handling::HandleErrorLayer,
    extract::{Request, State},
    handler::{Handler, HandlerWithoutStateExt},
    http::{HeaderValue, Method, StatusCode},
    middleware::{self, Next},
    response::Response,
    routing::{MethodFilter, MethodRouter, any, delete, get, on, patch, post, put},
};
use axum_extra::routing::{RouterExt, TypedPath};
use idempotent_runtime::{Caller, Idempotency, IdempotencyLayer, Scope, idempotent};
use serde::Deserialize;
use tower::{Service, ServiceBuilder, limit::ConcurrencyLimitLayer};

use crate::support::{empty, exercise, send, serve};

#[idempotent]
async fn handler(method: Method) -> String {
    method.to_string()
}

#[idempotent]
async fn stated(State(name): State<&'static str>) -> &'static str {
    name
}

fn request(method: Method, path: &str) -> Request<String> {
    let mut request = empty(path);
    *request.method_mut() = method;
    request
}

#[tokio::test]
async fn every_method() {
    let router = || {
        let router = Router::new().route("/chain", get(handler).post(handler).put(handler));
        let router = router
            .route("/patch", patch(handler))
            .route("/delete", delete(handler));
        let router = router
            .route("/any", any(handler))
            .route("/on", on(MethodFilter::PUT, handler));
        router.route("/merged", put(handler).merge(post(handler)))
    };
    for (method, path) in [
        (Method::GET, "/chain"),
        (Method::POST, "/chain"),
        (Method::PUT, "/chain"),
        (Method::PATCH, "/patch"),
        (Method::DELETE, "/delete"),
        (Method::OPTIONS, "/any"),
        (Method::PUT, "/on"),
        (Method::PUT, "/merged"),
    ] {
        assert_eq!(
            exercise(router(), request(method.clone(), path)).await.body,
            method.as_str()
        );
    }
}

/// One key on two methods of a path, or under two nests, means two records.
#[tokio::test]
async fn nesting_and_merging() {
    let inner = || Router::new().route("/x", post(handler).put(handler));
    let router = Router::new()
        .nest("/a", inner())
        .nest("/b", inner())
        .nest("/{tenant}/c", inner());
    let router = router
        .merge(Router::new().nest_service("/d", inner()))
        .merge(Router::new().route("/x", post(handler)));
    let address = serve(router).await;
    for path in ["/x", "/a/x", "/b/x", "/t/c/x", "/d/x"] {
        for replay in [false, true] {
            let mut request = request(Method::POST, path);
            request
                .headers_mut()
                .insert("idempotency-key", "k".parse().expect("valid"));
            let response = send(address, request).await;
            assert_eq!(
                (response.status, response.is_replay()),
                (StatusCode::OK, replay),
                "{path}"
            );
        }
    }
    let mut put = request(Method::PUT, "/a/x");
    put.headers_mut()
        .insert("idempotency-key", "k".parse().expect("valid"));
    assert!(!send(address, put).await.is_replay());
}

#[tokio::test]
async fn fallbacks() {
    let router = || {
        Router::new()
            .route("/get", get(handler))
            .fallback(handler)
            .method_not_allowed_fallback(handler)
    };
    assert_eq!(exercise(router(), empty("/nowhere")).await.body, "POST");
    assert_eq!(exercise(router(), empty("/get")).await.body, "POST");
    let methods = || Router::new().route("/", get(handler).fallback(handler));
    assert_eq!(exercise(methods(), empty("/")).await.body, "POST");
}

#[tokio::test]
async fn state_of_routers_method_routers_and_handlers() {
    let router = || Router::new().route("/", post(stated)).with_state("router");
    assert_eq!(exercise(router(), empty("/")).await.body, "router");
    // The state given to the handler, to a method router, and to a router within another.
    let router = || {
        let router = Router::new().route("/handler", post(stated).with_state("method"));
        let router = router.route_service("/service", Handler::with_state(stated, "service"));
        let router = router.nest(
            "/nested",
            Router::new().route("/", post(stated)).with_state("nested"),
        );
        router.fallback_service(Handler::with_state(stated, "fallback"))
    };
    for (path, name) in [
        ("/handler", "method"),
        ("/service", "service"),
        ("/nested", "nested"),
        ("/other", "fallback"),
    ] {
        assert_eq!(exercise(router(), empty(path)).await.body, name);
    }
}

async fn stamp(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response
        .headers_mut()
        .insert("x-stamp", "1".parse().expect("valid"));
    response
}

#[tokio::test]
async fn layers() {
    let router = || {
        let router = Router::new().route(
            "/handler",
            post(handler.layer(ConcurrencyLimitLayer::new(8))),
        );
        let router = router.route("/method", post(handler).layer(middleware::from_fn(stamp)));
        let router = router
            .route("/route", post(handler))
            .route_layer(middleware::from_fn(stamp));
        router
            .route("/all", post(handler))
            .layer(ConcurrencyLimitLayer::new(8))
    };
    for (path, stamped) in [
        ("/handler", true),
        ("/method", true),
        ("/route", true),
        ("/all", false),
    ] {
        let response = exercise(router(), empty(path)).await;
        assert_eq!(response.headers.contains_key("x-stamp"), stamped, "{path}");
    }
}

/// With the layer around it, the attribute adds neither an execution nor a record.
#[tokio::test]
async fn the_layer_around_the_attribute() {
    let engine = Idempotency::builder().build().expect("valid");
    let router = Router::new()
        .route("/", post(handler))
        .layer(IdempotencyLayer::new(engine.clone()));
    assert_eq!(
        exercise(router.layer(axum::Extension(engine)), empty("/"))
            .await
            .body,
        "POST"
    );
}

#[tokio::test]
async fn routes_in_a_vector() {
    fn routes() -> Vec<(&'static str, MethodRouter<&'static str>)> {
        vec![
            ("/a", post(handler)),
            ("/b", post(stated)),
            ("/c", any(stated)),
        ]
    }
    let router = || {
        routes()
            .into_iter()
            .fold(Router::new(), |router, (path, route)| {
                router.route(path, route)
            })
    };
    assert_eq!(
        exercise(router().with_state("s"), empty("/a")).await.body,
        "POST"
    );
    assert_eq!(
        exercise(router().with_state("s"), empty("/b")).await.body,
        "s"
    );
    assert_eq!(
        exercise(router().with_state("s"), empty("/c")).await.body,
        "s"
    );
}

/// The handler is the whole server.
#[tokio::test]
async fn without_a_router() {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, handler.into_make_service()).await });
    for replay in [false, true] {
        let mut request = empty("/whatever");
        request.headers_mut().insert(
            "idempotency-key",
            "without-a-router".parse().expect("valid"),
        );
        assert_eq!(send(address, request).await.is_replay(), replay);
    }
}

/// The router and the handler as tower services, with layers around them.
#[tokio::test]
async fn as_a_service() {
    let mut service = Router::new()
        .route("/", post(handler))
        .into_service::<axum::body::Body>();
    std::future::poll_fn(|context| Service::<Request>::poll_ready(&mut service, context))
        .await
        .expect("ready");
    let response: Result<Response, Infallible> = service
        .call(Request::post("/").body("".into()).expect("valid"))
        .await;
    assert_eq!(response.expect("infallible").status(), StatusCode::OK);

    let layers = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: BoxError| async {
            StatusCode::GATEWAY_TIMEOUT
        }))
        .timeout(Duration::from_secs(5));
    let router = Router::new().route_service("/", layers.service(Handler::with_state(handler, ())));
    assert_eq!(exercise(router, empty("/")).await.body, "POST");
}

/// `axum-extra` takes the route from the type of the first argument.
#[tokio::test]
async fn typed_paths() {
    #[derive(TypedPath, Deserialize)]
    #[typed_path("/orders/{id}")]
    struct Order {
        id: u32,
    }
    #[derive(TypedPath, Deserialize)]
    #[typed_path("/payments/{id}")]
    struct Payment {
        id: u32,
    }
    #[derive(TypedPath, Deserialize)]
    #[typed_path("/refunds/{id}")]
    struct Refund {
        id: u32,
    }
    #[idempotent]
    async fn order(Order { id }: Order, text: String) -> String {
        format!("{id} {text}")
    }
    #[idempotent]
    async fn payment(Payment { id }: Payment) -> String {
        id.to_string()
    }
    #[idempotent(state = ())]
    async fn refund(Refund { id }: Refund) -> String {
        id.to_string()
    }
    #[derive(TypedPath, Deserialize)]
    #[typed_path("/accounts/{id}")]
    struct Account {
        id: u32,
    }
    // The path is both: a part of the request, and who calls.
    impl Caller for Account {
        fn scope(&self) -> Scope {
            Scope::new(self.id.to_string())
        }
    }
    #[idempotent(caller = Account)]
    async fn account(Account { id }: Account) -> String {
        id.to_string()
    }
    #[derive(TypedPath, Deserialize)]
    #[typed_path("/users/{id}")]
    struct UserPath {
        id: u32,
    }
    #[idempotent(caller = Extension<Arc<Scope>>)]
    async fn user(UserPath { id }: UserPath, Extension(scope): Extension<Arc<Scope>>) -> String {
        format!("{id} {scope:?}")
    }
    let users = || Router::new().typed_post(user);
    let known = users().layer(Extension(Arc::new(Scope::new("alice"))));
    let answer = exercise(known, empty("/users/4")).await;
    assert!(answer.body.starts_with("4 Scope"), "{}", answer.body);
    // Nobody was found: the answer is the extractor's.
    let mut request = empty("/users/4");
    let headers = request.headers_mut();
    headers.insert("idempotency-key", HeaderValue::from_static("k"));
    let refused = send(serve(users()).await, request).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refused.body.contains("Missing request extension"));
    let accounts = Router::new().typed_post(account);
    assert_eq!(exercise(accounts, empty("/accounts/5")).await.body, "5");
    let router = || {
        let router = Router::new()
            .typed_post(order)
            .typed_post(payment)
            .typed_post(refund);
        router.route("/plain/{id}", post(payment))
    };
    assert_eq!(exercise(router(), empty("/orders/7")).await.body, "7 ");
    assert_eq!(exercise(router(), empty("/payments/8")).await.body, "8");
    assert_eq!(exercise(router(), empty("/refunds/9")).await.body, "9");
    assert_eq!(exercise(router(), empty("/plain/6")).await.body, "6");
}
