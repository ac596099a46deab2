//! An app with one payment handler, protected by either of the two adapters.

use axum::{
    Extension, Router,
    extract::{Request, State},
    response::Response,
    routing::{any, post},
};
use idempotent_runtime::{Idempotency, IdempotencyLayer, MemoryStore, Policy, idempotent};

use super::CountingHandler;

/// The path of the payment handler.
pub(crate) const PAY: &str = "/pay";

/// Which adapter protects the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Adapter {
    Attribute,
    Layer,
}

impl Adapter {
    /// An app with this handler at [`PAY`], protected by this engine with its default policy.
    pub(crate) fn app(self, engine: &Idempotency, handler: &CountingHandler) -> Router {
        match self {
            Self::Attribute => Router::new()
                .route(PAY, any(pay))
                .layer(Extension(engine.clone()))
                .with_state(handler.clone()),
            Self::Layer => {
                unprotected_app(handler).route_layer(IdempotencyLayer::new(engine.clone()))
            }
        }
    }
}

/// Two engines on one store, as in two processes.
pub(crate) fn two_engines(policy: &Policy) -> (Idempotency, Idempotency) {
    let store = MemoryStore::new();
    let engine = || {
        let engine = Idempotency::builder()
            .store(store.clone())
            .policy(policy.clone());
        engine.build().unwrap()
    };
    (engine(), engine())
}

/// An app with the annotated handler and no engine of its own: the attribute uses the process-wide one.
pub(crate) fn app_without_engine(handler: &CountingHandler) -> Router {
    Router::new()
        .route(PAY, any(pay))
        .with_state(handler.clone())
}

/// An app with the same handler and no protection.
pub(crate) fn unprotected_app(handler: &CountingHandler) -> Router {
    Router::new()
        .route(PAY, post(unprotected).get(unprotected).put(unprotected))
        .with_state(handler.clone())
}

#[idempotent]
async fn pay(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}

async fn unprotected(State(handler): State<CountingHandler>, request: Request) -> Response {
    handler.call(request).await
}
