//! The engine's types as extractors and as parts of responses.

use std::convert::Infallible;

use ::axum::{
    Extension,
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
    middleware::AddExtension,
    response::{IntoResponse, IntoResponseParts, Response, ResponseParts},
};

use tower_layer::Layer;

use crate::{
    engine::{Idempotency, Retention, Unstyled},
    execution::Execution,
    problem::{Problem, ProblemCode, ProblemStyle},
};

/// The rejection of [`Execution`] as an extractor: the request has no key, so it runs unprotected.
///
/// The client gets the problem `missing_key`. On a route without `#[idempotent]` or
/// [`IdempotencyLayer`](crate::IdempotencyLayer) every request is rejected like this.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecutionRejection;

impl<S: Sync> FromRequestParts<S> for Execution {
    type Rejection = ExecutionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ExecutionRejection> {
        Self::from_extensions(&parts.extensions)
            .cloned()
            .ok_or(ExecutionRejection)
    }
}

impl<S: Sync> OptionalFromRequestParts<S> for Execution {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        Ok(Self::from_extensions(&parts.extensions).cloned())
    }
}

impl IntoResponse for ExecutionRejection {
    fn into_response(self) -> Response {
        unstyled(ProblemCode::MissingKey)
    }
}

/// A problem that is made without knowing an engine; the engine gives it its style.
pub(crate) fn unstyled(code: ProblemCode) -> Response {
    let problem = Problem::new(code);
    let mut response = problem.response(&ProblemStyle::default()).map(Body::from);
    response.extensions_mut().insert(Unstyled(code));
    response
}

impl std::fmt::Display for ExecutionRejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request has no idempotency key, so there is no execution to extract")
    }
}

impl std::error::Error for ExecutionRejection {}

/// The engine as a layer: annotated handlers inside use it, as with `Extension(engine)`. It protects nothing else; for
/// handlers without the attribute there is [`IdempotencyLayer`](crate::IdempotencyLayer).
///
/// ```
/// use axum::{Router, routing::post};
/// use idempotent_runtime::{Idempotency, idempotent};
///
/// #[idempotent]
/// async fn pay() -> &'static str {
///     "paid"
/// }
///
/// # fn main() -> Result<(), idempotent_runtime::BuildError> {
/// let idempotency = Idempotency::builder().build()?;
/// let app: Router = Router::new().route("/payments", post(pay)).layer(idempotency);
/// # Ok(())
/// # }
/// ```
impl<S> Layer<S> for Idempotency {
    type Service = AddExtension<S, Self>;

    fn layer(&self, inner: S) -> Self::Service {
        Extension(self.clone()).layer(inner)
    }
}

impl IntoResponseParts for Retention {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        response.extensions_mut().insert(self);
        Ok(response)
    }
}
