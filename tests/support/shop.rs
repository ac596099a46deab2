//! The same payment handler behind each of the two adapters.

use axum::{
    Extension, Router,
    extract::{Request, State},
    response::Response,
    routing::{any, post},
};
use idempotent_runtime::{Idempotency, IdempotencyLayer, idempotent};

use super::Till;

/// Where payments are made.
pub(crate) const PAY: &str = "/pay";

/// Which adapter protects the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    Attribute,
    Layer,
}

impl Face {
    /// A shop with one till at [`PAY`], protected by this engine as its default policy says.
    pub(crate) fn shop(self, engine: &Idempotency, till: &Till) -> Router {
        match self {
            Self::Attribute => Router::new()
                .route(PAY, any(pay))
                .layer(Extension(engine.clone()))
                .with_state(till.clone()),
            Self::Layer => plain(till).route_layer(IdempotencyLayer::new(engine.clone())),
        }
    }
}

/// A shop whose router says nothing about idempotency: the engine is the one of this process.
pub(crate) fn bare_attribute(till: &Till) -> Router {
    Router::new().route(PAY, any(pay)).with_state(till.clone())
}

/// A shop without protection.
pub(crate) fn plain(till: &Till) -> Router {
    Router::new()
        .route(PAY, post(unprotected).get(unprotected).put(unprotected))
        .with_state(till.clone())
}

#[idempotent]
async fn pay(State(till): State<Till>, request: Request) -> Response {
    till.run(request).await
}

async fn unprotected(State(till): State<Till>, request: Request) -> Response {
    till.run(request).await
}
