//! The engine of the process (DESIGN.md, section 8): which engine a route uses, and what the log says of a route that
//! lost its engine.
//!
//! There is one such engine in a process, so each case runs in a process of its own: this test program, started again
//! for that case alone.

use std::{
    future::Future,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Extension, Router,
    body::Body,
    extract::{FromRef, State},
    routing::{any, post},
};
use http::{Method, Request, StatusCode};
use idempotent_runtime::{
    BuildError, Builder, Idempotency, IdempotencyLayer, InstallError, idempotent,
};
use log::Log;
use tower::ServiceExt;

mod log;

/// Says that this process runs one case.
const CASE: &str = "IDEMPOTENT_INSTALL_CASE";

/// The header that shows which engine answered a replay.
const MARKS: [&str; 4] = ["x-state", "x-extension", "x-installed", "x-layer"];

#[derive(Clone, Default)]
struct App {
    starts: Arc<AtomicUsize>,
    engine: Option<Idempotency>,
}

impl FromRef<App> for Idempotency {
    fn from_ref(app: &App) -> Self {
        app.engine.clone().expect("an engine in the state")
    }
}

#[idempotent]
async fn pay(State(app): State<App>) -> String {
    app.start()
}

#[idempotent(required)]
async fn pay_with_a_key(State(app): State<App>) -> String {
    app.start()
}

#[idempotent(engine = State<Idempotency>)]
async fn pay_by_state(State(app): State<App>) -> String {
    app.start()
}

impl App {
    fn start(&self) -> String {
        format!("start {}", self.starts.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// An engine whose replays carry this header.
fn marked(mark: &'static str) -> Builder {
    Idempotency::builder().replay_header(http::HeaderName::from_static(mark))
}

/// Sends a request with a new key twice. Returns which engine replayed the first response: its mark, or `idempotent-replay` for an
/// engine with all defaults.
async fn engine_of(router: &Router, method: Method, path: &str) -> &'static str {
    static KEY: AtomicUsize = AtomicUsize::new(0);
    let key = KEY.fetch_add(1, Ordering::SeqCst);
    let mut bodies = Vec::new();
    let mut mark = "none";
    for _ in 0..2 {
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header("idempotency-key", format!("key-{key}"));
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        for candidate in MARKS.into_iter().chain(["idempotent-replay"]) {
            if response.headers().contains_key(candidate) {
                mark = candidate;
            }
        }
        bodies.push(
            axum::body::to_bytes(response.into_body(), 100)
                .await
                .unwrap(),
        );
    }
    assert_eq!(bodies[0], bodies[1], "executed twice");
    mark
}

/// Runs a case in a process of its own, and prints what that process printed if it fails.
fn alone<F: Future>(name: &str, case: impl FnOnce(Log) -> F) {
    if std::env::var(CASE).is_ok_and(|running| running == name) {
        let (log, _guard) = Log::collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(case(log));
        return;
    }
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CASE, name)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(
        ran.status.success() && printed.contains("1 passed"),
        "{printed}"
    );
}

#[test]
fn the_installed_engine_serves_every_route_that_was_given_none() {
    alone(
        "the_installed_engine_serves_every_route_that_was_given_none",
        |log| async move {
            assert!(Idempotency::installed().is_none());
            let installed = marked("x-installed").install().unwrap();

            // A layer that reaches no route, as `Router::layer` before the routes, takes nothing away.
            let app: Router = Router::new()
                .layer(Extension(marked("x-extension").build().unwrap()))
                .route("/pay", post(pay))
                .with_state(App::default());

            assert_eq!(engine_of(&app, Method::POST, "/pay").await, "x-installed");
            assert_eq!(log.count("memory of th"), 0, "{}", log.text());
            let found = Idempotency::installed().expect("it is installed");
            let shut = found.shutdown(std::time::Duration::from_secs(1)).await;
            assert_eq!((shut.drained, shut.unknown), (0, 0));
            // It was the same engine.
            let again = installed.shutdown(std::time::Duration::ZERO).await;
            assert_eq!(again.unknown, 0);
            let request = Request::post("/pay").header("idempotency-key", "new");
            let request = request.body(Body::empty()).unwrap();
            let answer = app.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        },
    );
}

#[test]
fn the_routers_own_engine_goes_before_the_installed_one() {
    alone(
        "the_routers_own_engine_goes_before_the_installed_one",
        |log| async move {
            marked("x-installed").install().unwrap();
            let app = App {
                engine: Some(marked("x-state").build().unwrap()),
                ..App::default()
            };
            let extension = Extension(marked("x-extension").build().unwrap());
            let layer = IdempotencyLayer::new(marked("x-layer").build().unwrap());
            let router: Router = Router::new()
                .route("/state", post(pay_by_state))
                .route("/extension", post(pay))
                .layer(extension)
                .route("/layer", any(pay).layer(layer))
                .route("/installed", post(pay))
                .with_state(app);

            for (path, mark) in [
                ("/state", "x-state"),
                ("/extension", "x-extension"),
                ("/layer", "x-layer"),
                ("/installed", "x-installed"),
            ] {
                assert_eq!(engine_of(&router, Method::POST, path).await, mark, "{path}");
            }
            assert_eq!(log.count("memory of th"), 0, "{}", log.text());
        },
    );
}

#[test]
fn a_second_install_is_refused_and_says_that_one_is_installed() {
    alone(
        "a_second_install_is_refused_and_says_that_one_is_installed",
        |_| async {
            marked("x-installed").install().unwrap();
            let refused = marked("x-extension").install().unwrap_err();
            assert_eq!(refused, InstallError::AlreadyInstalled);
            assert!(
                refused.to_string().contains("`Idempotency::installed()`"),
                "{refused}"
            );
            let router: Router = Router::new()
                .route("/pay", post(pay))
                .with_state(App::default());
            assert_eq!(
                engine_of(&router, Method::POST, "/pay").await,
                "x-installed"
            );
        },
    );
}

#[test]
fn settings_that_cannot_work_are_refused_and_leave_the_place_free() {
    alone(
        "settings_that_cannot_work_are_refused_and_leave_the_place_free",
        |_| async {
            let refused = Idempotency::builder()
                .secret("short")
                .install()
                .unwrap_err();
            let wrong = BuildError::ShortSecret { length: 5 };
            assert_eq!(refused.to_string(), wrong.to_string());
            assert_eq!(refused, InstallError::Build(wrong));
            assert!(std::error::Error::source(&refused).is_none());
            assert!(Idempotency::installed().is_none());
            marked("x-installed").install().unwrap();
        },
    );
}

#[test]
fn an_install_after_a_route_fell_back_is_refused_and_names_the_route() {
    alone(
        "an_install_after_a_route_fell_back_is_refused_and_names_the_route",
        |log| async move {
            let router: Router = Router::new()
                .route("/orders/{id}", post(pay))
                .with_state(App::default());
            let mark = engine_of(&router, Method::POST, "/orders/7").await;
            assert_eq!(mark, "idempotent-replay");

            let refused = marked("x-installed").install().unwrap_err();
            assert_eq!(
                refused,
                InstallError::FallbackInUse {
                    endpoint: "POST /orders/{id}".into()
                }
            );
            assert!(
                refused.to_string().contains("`POST /orders/{id}`"),
                "{refused}"
            );
            assert!(Idempotency::installed().is_none());
            // Nothing else was built: one warning, no error.
            assert_eq!(log.count("WARN"), 1, "{}", log.text());
            assert_eq!(log.count("ERROR"), 0, "{}", log.text());
            // An engine that is built later should have had the route.
            let later = marked("x-extension").build().unwrap();
            engine_of(&router, Method::POST, "/orders/7").await;
            assert_eq!(log.count("ERROR"), 1, "{}", log.text());
            drop(later);
        },
    );
}

#[test]
fn without_any_engine_the_fallback_warns_once() {
    alone(
        "without_any_engine_the_fallback_warns_once",
        |log| async move {
            // An engine that is gone is no longer meant.
            drop(marked("x-extension").build().unwrap());
            let router: Router = Router::new()
                .route("/a", post(pay))
                .route("/b", post(pay))
                .with_state(App::default());
            for path in ["/a", "/b", "/a"] {
                engine_of(&router, Method::POST, path).await;
            }
            assert_eq!(log.count("WARN"), 1, "{}", log.text());
            assert_eq!(log.count("ERROR"), 0, "{}", log.text());
            assert!(log.text().contains("install()"), "{}", log.text());
        },
    );
}

#[test]
fn a_route_that_lost_the_engine_says_so_once_with_its_endpoint() {
    alone(
        "a_route_that_lost_the_engine_says_so_once_with_its_endpoint",
        |log| async move {
            let engine = marked("x-extension").build().unwrap();
            // `Router::layer` reaches the routes before it only.
            let router: Router = Router::new()
                .route("/found", post(pay))
                .layer(Extension(engine.clone()))
                .route("/lost/{id}", any(pay))
                .fallback(pay)
                .with_state(App::default());

            assert_eq!(
                engine_of(&router, Method::POST, "/found").await,
                "x-extension"
            );
            assert_eq!(log.count("ERROR"), 0, "{}", log.text());
            for (method, path) in [
                (Method::POST, "/lost/1"),
                (Method::POST, "/lost/2"),
                (Method::PUT, "/lost/1"),
                (Method::POST, "/x"),
                (Method::POST, "/y"),
            ] {
                let mark = engine_of(&router, method, path).await;
                assert_eq!(mark, "idempotent-replay", "{path}");
            }
            let errors: Vec<_> = log.lines("ERROR");
            assert_eq!(errors.len(), 3, "{}", log.text());
            assert!(errors[0].contains("POST /lost/{id}"), "{}", errors[0]);
            assert!(errors[1].contains("PUT /lost/{id}"), "{}", errors[1]);
            assert!(
                !errors[2].contains("/x"),
                "a path that clients choose: {}",
                errors[2]
            );
            assert!(
                errors.iter().all(|error| error.contains("install()")),
                "{errors:?}"
            );
            assert_eq!(log.count("WARN"), 0, "{}", log.text());
        },
    );
}

#[test]
fn a_request_without_a_key_needs_no_engine() {
    alone(
        "a_request_without_a_key_needs_no_engine",
        |log| async move {
            let layer = IdempotencyLayer::new(marked("x-layer").build().unwrap());
            let router: Router = Router::new()
                .route("/alone", post(pay))
                .route("/inside", post(pay).layer(layer.clone()))
                .route("/required", post(pay_with_a_key).layer(layer))
                .with_state(App::default());
            for path in ["/alone", "/inside", "/required"] {
                let request = Request::post(path).body(Body::empty()).unwrap();
                router.clone().oneshot(request).await.unwrap();
            }
            assert_eq!(log.count("ERROR") + log.count("WARN"), 0, "{}", log.text());
        },
    );
}

#[test]
fn a_layer_lends_its_engine_to_annotated_handlers_of_methods_that_it_does_not_cover() {
    alone(
        "a_layer_lends_its_engine_to_annotated_handlers_of_methods_that_it_does_not_cover",
        |log| async move {
            let layer = IdempotencyLayer::new(marked("x-layer").build().unwrap());
            let inside: Router = Router::new()
                .route("/pay", any(pay))
                .route_layer(layer.methods([Method::POST]))
                .with_state(App::default());
            // The extension outside is another router's.
            let extension = Extension(marked("x-extension").build().unwrap());
            for router in [inside.clone(), inside.layer(extension)] {
                for method in [Method::POST, Method::PUT, Method::GET] {
                    let mark = engine_of(&router, method.clone(), "/pay").await;
                    assert_eq!(mark, "x-layer", "{method}");
                }
            }
            // A route inside the layer never looks for the process's engine.
            assert_eq!(log.count("ERROR") + log.count("WARN"), 0, "{}", log.text());
        },
    );
}
