//! Routes: the same key elsewhere is another key (contract, section 6).

use axum::{
    Extension, Router,
    extract::{Path, State},
    routing::{any, post},
};
use http::Method;
use idempotent_runtime::{Idempotency, IdempotencyLayer, Policy, idempotent};

use crate::support::{Ask, Face, Till, ask, both, by_hand};

#[idempotent]
async fn pay(
    State(till): State<Till>,
    request: axum::extract::Request,
) -> axum::response::Response {
    till.run(request).await
}

#[idempotent(name = "payments")]
async fn named(
    State(till): State<Till>,
    request: axum::extract::Request,
) -> axum::response::Response {
    till.run(request).await
}

async fn bare(
    State(till): State<Till>,
    request: axum::extract::Request,
) -> axum::response::Response {
    till.run(request).await
}

fn engine() -> Idempotency {
    Idempotency::builder().build().unwrap()
}

/// A router with these handlers at `/pay` and `/refund`.
fn pair(face: Face, engine: &Idempotency) -> Router<Till> {
    match face {
        Face::Attribute => Router::new()
            .route("/pay", any(pay))
            .route("/refund", any(pay))
            .route("/orders/{id}", any(pay)),
        Face::Layer => Router::new()
            .route("/pay", any(bare))
            .route("/refund", any(bare))
            .route("/orders/{id}", any(bare))
            .route_layer(IdempotencyLayer::new(engine.clone())),
    }
}

/// Sends the same key and body to each of these; each is a request of its own.
async fn all_differ(app: &Router, asks: &[Ask]) {
    for (n, asked) in asks.iter().enumerate() {
        ask(app, &asked.clone().key("k").body("{}"))
            .await
            .is_charge(n + 1);
    }
    for (n, asked) in asks.iter().enumerate() {
        let again = ask(app, &asked.clone().key("k").body("{}")).await;
        again.is_replay_of_charge(n + 1);
    }
}

#[test]
fn equal_keys_on_two_routes_or_methods_are_different_keys() {
    both(async |face| {
        let (engine, till) = (engine(), Till::new());
        let app = pair(face, &engine)
            .layer(Extension(engine.clone()))
            .with_state(till.clone());
        all_differ(
            &app,
            &[
                Ask::post("/pay"),
                Ask::post("/refund"),
                Ask::new(Method::PUT, "/pay"),
                Ask::new(Method::PATCH, "/pay"),
                Ask::new(Method::DELETE, "/pay"),
            ],
        )
        .await;
        assert_eq!(till.starts(), 5);
    });
}

#[test]
fn nested_routers_keep_the_full_path() {
    both(async |face| {
        let (engine, till) = (engine(), Till::new());
        let inner = || pair(face, &engine);
        // Given the same router nested in every way, and in itself.
        let app = Router::new()
            .merge(inner())
            .nest("/v1", inner())
            .nest("/v2", inner())
            .nest("/deep", Router::new().nest("/er", inner()))
            .nest_service("/service", inner().with_state(till.clone()))
            .nest_service("/other", inner().with_state(till.clone()))
            .nest("/tenants/{tenant}", inner())
            .layer(Extension(engine.clone()))
            .with_state(till.clone());

        // Then equal keys and bodies on different full paths are different requests.
        let paths = [
            "/pay",
            "/refund",
            "/v1/pay",
            "/v2/pay",
            "/v1/refund",
            "/deep/er/pay",
            "/service/pay",
            "/other/pay",
            "/other/refund",
        ];
        all_differ(&app, &paths.map(Ask::post)).await;

        // And on one route, a parameter of the path is part of what is asked for.
        let base = till.starts();
        let order = |path: &str| Ask::post(path).key("p").body("{}");
        ask(&app, &order("/tenants/a/orders/1"))
            .await
            .is_charge(base + 1);
        ask(&app, &order("/tenants/a/orders/2"))
            .await
            .is_problem(409, "mismatch");
        ask(&app, &order("/tenants/b/orders/1"))
            .await
            .is_problem(409, "mismatch");
        ask(&app, &order("/tenants/a/orders/1"))
            .await
            .is_replay_of_charge(base + 1);
    });
}

#[test]
fn a_layer_around_a_whole_nested_router_sees_the_full_path() {
    by_hand(async {
        let (engine, till) = (engine(), Till::new());
        let inner = Router::new()
            .route("/pay", post(bare))
            .fallback(bare)
            .layer(IdempotencyLayer::new(engine.clone()))
            .with_state(till.clone());
        let app = Router::new()
            .nest_service("/a", inner.clone())
            .nest_service("/b", inner.clone())
            .nest("/c", inner.clone())
            .merge(inner);
        let paths = [
            "/a/pay", "/b/pay", "/c/pay", "/pay", "/a/else", "/b/else", "/else",
        ];
        all_differ(&app, &paths.map(Ask::post)).await;
    });
}

#[test]
fn a_layer_around_everything_protects_each_path_by_itself() {
    by_hand(async {
        let (engine, till) = (engine(), Till::new());
        let app = Router::new()
            .nest(
                "/v1",
                Router::new()
                    .route("/pay", post(bare))
                    .route("/refund", post(bare)),
            )
            .with_state(till.clone());
        let service = tower::Layer::layer(&IdempotencyLayer::new(engine), app);
        let app = Router::new().fallback_service(service);
        let paths = ["/v1/pay", "/v1/refund"];
        all_differ(&app, &paths.map(Ask::post)).await;
    });
}

#[test]
fn a_name_replaces_method_and_route_in_the_scope() {
    by_hand(async {
        let (engine, till) = (engine(), Till::new());
        // Given a route that was renamed between two attempts, with `name` and a fingerprint of its own.
        let app = |path: &str| {
            Router::new()
                .route(path, post(named))
                .layer(Extension(engine.clone()))
                .with_state(till.clone())
        };
        ask(&app("/old"), &Ask::post("/old").key("k"))
            .await
            .is_charge(1);

        // Then its records are found under the new path: as another request, not as a new one.
        let moved = ask(&app("/new"), &Ask::post("/new").key("k")).await;
        moved.is_problem(409, "mismatch");
        ask(&app("/old"), &Ask::post("/old").key("k"))
            .await
            .is_replay_of_charge(1);
    });
}

#[test]
fn the_layer_covers_the_methods_it_is_told() {
    by_hand(async {
        let (engine, till) = (engine(), Till::new());
        let with = |layer: IdempotencyLayer| {
            let app = Router::new().route("/pay", any(bare)).route_layer(layer);
            app.with_state(till.clone())
        };
        let layer = IdempotencyLayer::new(engine.clone()).policy(Policy::new().required(true));
        let app = with(layer.clone());
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            // Safe methods pass by, key or not.
            for _ in 0..2 {
                let answer = ask(&app, &Ask::new(method.clone(), "/pay").key("k")).await;
                assert_eq!(answer.status, 201, "{method}");
                assert!(!answer.replayed(), "{method}");
            }
        }
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            ask(&app, &Ask::new(method, "/pay"))
                .await
                .is_problem(400, "missing_key");
        }
        let app = with(layer.methods([Method::POST]));
        ask(&app, &Ask::post("/pay"))
            .await
            .is_problem(400, "missing_key");
        assert_eq!(ask(&app, &Ask::new(Method::PUT, "/pay")).await.status, 201);
    });
}

#[test]
fn a_layer_outside_and_the_attribute_inside_execute_and_store_once() {
    by_hand(async {
        let till = Till::new();
        let store = crate::support::Faulty::new();
        let inside = Idempotency::builder().store(store.clone()).build().unwrap();
        let outside = Idempotency::builder().store(store.clone()).build().unwrap();
        for (outside, key) in [(&inside, "same engine"), (&outside, "two engines")] {
            let acquired = store.calls(crate::support::Verb::Acquire);
            let app = Router::new()
                .route("/pay", post(pay))
                .route_layer(Extension(inside.clone()))
                .route_layer(IdempotencyLayer::new(outside.clone()))
                .with_state(till.clone());
            let before = till.starts();
            let asked = Ask::post("/pay").key(&format!("{key:?}"));
            ask(&app, &asked).await.is_charge(before + 1);
            ask(&app, &asked).await.is_replay_of_charge(before + 1);
            assert_eq!(till.starts(), before + 1);
            assert_eq!(store.calls(crate::support::Verb::Acquire), acquired + 2);
        }
        assert_eq!(store.calls(crate::support::Verb::Complete), 2);
    });
}

#[test]
fn an_execution_that_calls_the_app_itself_is_not_mistaken_for_a_retry() {
    by_hand(async {
        // Given a handler that, under its own key, sends an idempotent request to another route of the app.
        #[idempotent]
        async fn outer(State(till): State<Till>, Path(()): Path<()>) -> String {
            let app = pair(Face::Attribute, &engine()).with_state(till);
            ask(&app, &Ask::post("/refund").key("k"))
                .await
                .text()
                .to_owned()
        }
        let till = Till::new();
        let app = Router::new()
            .route("/pay", post(outer))
            .layer(Extension(engine()))
            .with_state(till.clone());
        let first = ask(&app, &Ask::post("/pay").key("k")).await;
        assert_eq!(first.text(), "charge 1");
        let again = ask(&app, &Ask::post("/pay").key("k")).await;
        assert_eq!((again.text(), till.starts()), ("charge 1", 1));
    });
}
