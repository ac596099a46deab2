//! Other attributes on the same handler, above and below ours.

use std::sync::{Arc, Mutex};

use axum::{
    Json, Router, debug_handler,
    extract::State,
    http::{Method, StatusCode},
    routing::post,
};
use idempotent_runtime::{Idempotency, Policy, idempotent};
use tracing::{Subscriber, instrument, span};
use tracing_subscriber::{Layer, layer::Context, prelude::*, registry::LookupSpan};
use utoipa::{Modify, OpenApi};

use crate::support::{empty, exercise, json};

type Name = &'static str;

mod debug_handler_attribute {
    use super::*;

    #[debug_handler]
    #[idempotent]
    async fn above(State(name): State<Name>, Json(n): Json<u32>) -> Result<String, StatusCode> {
        Ok(format!("{name} {n}"))
    }

    #[idempotent]
    #[debug_handler]
    async fn below(State(name): State<Name>, Json(n): Json<u32>) -> Result<String, StatusCode> {
        Ok(format!("{name} {n}"))
    }

    #[debug_handler(state = Name)]
    #[idempotent(ttl = "1h", state = Name)]
    async fn with_state(Json(n): Json<u32>) -> String {
        format!("debug {n}")
    }

    #[idempotent(inner = beside_inner)]
    #[debug_handler(state = Name)]
    async fn beside(Json(n): Json<u32>) -> String {
        format!("debug {n}")
    }

    /// Without arguments it stands below: above, it would check a call without arguments.
    #[idempotent]
    #[debug_handler]
    async fn without_arguments() -> Name {
        "debug"
    }

    #[tokio::test]
    async fn debug_handler_above_and_below() {
        let router = || {
            let router = Router::new()
                .route("/above", post(above))
                .route("/below", post(below));
            let router = router
                .route("/with_state", post(with_state))
                .route("/beside", post(beside));
            router
                .route("/none", post(without_arguments))
                .with_state("debug")
        };
        for path in ["/above", "/below", "/with_state", "/beside"] {
            assert_eq!(exercise(router(), json(path, "3")).await.body, "debug 3");
        }
        assert_eq!(exercise(router(), empty("/none")).await.body, "debug");
    }
}

mod instrument_attribute {
    use super::*;

    #[instrument(skip_all, fields(n))]
    #[idempotent]
    async fn above(Json(n): Json<u32>) -> String {
        span::Span::current().record("n", n);
        n.to_string()
    }

    #[idempotent]
    #[instrument(skip(n), fields(m = n.0))]
    async fn below(n: Json<u32>) -> Result<String, StatusCode> {
        Ok(n.0.to_string())
    }

    #[idempotent]
    #[instrument]
    async fn recorded(Json(n): Json<u32>) -> String {
        n.to_string()
    }

    #[instrument(err)]
    #[idempotent(ttl = "1h")]
    #[debug_handler]
    async fn between(Json(n): Json<u32>) -> Result<String, StatusCode> {
        Ok(n.to_string())
    }

    #[idempotent(inner = beside_inner)]
    #[instrument]
    async fn beside(Json(n): Json<u32>) -> String {
        n.to_string()
    }

    /// Names of the spans that were opened.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<Vec<&'static str>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Names {
        fn on_new_span(&self, attributes: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
            self.0
                .lock()
                .expect("no panic")
                .push(attributes.metadata().name());
        }
    }

    /// The handler's span opens exactly when the handler runs: twice without a key, once with one. Its name is that of
    /// the plain function, if `inner` gives it one.
    #[tokio::test]
    async fn spans_open_when_the_handler_runs() {
        let names = Names::default();
        let _guard =
            tracing::subscriber::set_default(tracing_subscriber::registry().with(names.clone()));
        let router = || {
            let router = Router::new()
                .route("/above", post(above))
                .route("/below", post(below));
            let router = router
                .route("/recorded", post(recorded))
                .route("/between", post(between));
            router.route("/beside", post(beside))
        };
        for name in ["above", "below", "recorded", "between", "beside"] {
            names.0.lock().expect("no panic").clear();
            assert_eq!(
                exercise(router(), json(&format!("/{name}"), "3"))
                    .await
                    .body,
                "3"
            );
            let opened = names.0.lock().expect("no panic");
            assert_eq!(
                opened
                    .iter()
                    .filter(|opened| opened.starts_with(name))
                    .count(),
                3,
                "{name}: {opened:?}"
            );
        }
    }
}

mod utoipa_path {
    use super::*;

    /// Pays.
    #[utoipa::path(post, path = "/pay", request_body = u32, responses((status = 200, body = String)))]
    #[idempotent]
    async fn pay(Json(amount): Json<u32>) -> String {
        amount.to_string()
    }

    #[utoipa::path(post, path = "/order", responses((status = 200)))]
    /// Orders.
    #[idempotent(required = false)]
    /// Twice.
    #[instrument]
    async fn order() -> Name {
        "ordered"
    }

    #[derive(OpenApi)]
    #[openapi(paths(pay, order))]
    struct Docs;

    #[tokio::test]
    async fn documentation_is_generated() {
        let router = || {
            Router::new()
                .route("/pay", post(pay))
                .route("/order", post(order))
        };
        assert_eq!(exercise(router(), json("/pay", "3")).await.body, "3");
        assert_eq!(exercise(router(), empty("/order")).await.body, "ordered");
        let mut docs = Docs::openapi();
        let engine = Idempotency::builder().build().expect("valid defaults");
        let pay = Policy::new().required(true);
        let documentation = engine.documentation();
        documentation
            .operation(Method::POST, "/pay", pay)
            .modify(&mut docs);
        let docs = docs.to_json().expect("JSON");
        for added in ["idempotency-key", "missing_key", "IdempotencyProblem"] {
            assert!(docs.contains(added), "{added}: {docs}");
        }
        assert!(
            docs.contains("/pay") && docs.contains("Pays.") && docs.contains("Orders."),
            "{docs}"
        );
    }
}

mod comments_and_lints {
    use super::*;

    #[deny(missing_docs)]
    #[must_use]
    /// Above.
    #[idempotent]
    /// Below.
    #[allow(clippy::unused_async, reason = "axum wants a future")]
    #[inline]
    pub(super) async fn commented() -> Name {
        "commented"
    }

    #[idempotent]
    #[cfg(test)]
    #[cfg_attr(test, doc = "Only here.")]
    async fn conditional() -> Name {
        "conditional"
    }

    #[idempotent]
    #[cfg(not(test))]
    async fn conditional() -> Name {
        "not here"
    }

    #[tokio::test]
    async fn comments_lints_and_cfg() {
        let router = || {
            Router::new()
                .route("/a", post(commented))
                .route("/b", post(conditional))
        };
        assert_eq!(exercise(router(), empty("/a")).await.body, "commented");
        assert_eq!(exercise(router(), empty("/b")).await.body, "conditional");
    }
}

/// A trait whose methods return boxed futures, as a dependency of a handler.
mod async_trait_attribute {
    use async_trait::async_trait;

    use super::*;

    #[async_trait]
    trait Ledger: Send + Sync {
        async fn enter(&self, amount: u32) -> u32;
    }

    struct Memory(u32);

    #[async_trait]
    impl Ledger for Memory {
        async fn enter(&self, amount: u32) -> u32 {
            self.0 + amount
        }
    }

    #[idempotent]
    async fn handler(State(ledger): State<Arc<dyn Ledger>>, Json(amount): Json<u32>) -> String {
        ledger.enter(amount).await.to_string()
    }

    #[tokio::test]
    async fn a_dependency_with_boxed_futures() {
        let ledger: Arc<dyn Ledger> = Arc::new(Memory(4));
        let router = Router::new().route("/", post(handler)).with_state(ledger);
        assert_eq!(exercise(router, json("/", "3")).await.body, "7");
    }
}
