//! The handler's transaction as an extractor.

use std::sync::Arc;

use ::axum::{
    body::Body,
    extract::{FromRequestParts, OptionalFromRequestParts},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::{deferred::refusal, extract::ExecutionRejection};
use crate::{
    engine::{Retention, core::slot::NoTransaction},
    execution::Execution,
    problem::ProblemStyle,
    transaction::{Transaction, TransactionDatabase},
};

/// The rejection of [`Transaction`](crate::Transaction) as an extractor: the request has no key, the route has not the option
/// `transaction`, or the transaction could not begin. Nothing was executed.
#[derive(Debug)]
pub struct TransactionRejection(Response);

impl IntoResponse for TransactionRejection {
    fn into_response(self) -> Response {
        self.0
    }
}

impl<S: Sync, Db: TransactionDatabase> FromRequestParts<S> for Transaction<Db> {
    type Rejection = TransactionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, TransactionRejection> {
        let Some(execution) = Execution::from_extensions(&parts.extensions) else {
            return Err(TransactionRejection(ExecutionRejection.into_response()));
        };
        let lease = execution.lease();
        let Some(slot) = lease.transaction() else {
            let refused = NoTransaction::misuse(
                "the route takes `Transaction<…>` as an argument and has not the option `transaction`",
            );
            let mut response = refused.0.response(&ProblemStyle::default()).map(Body::from);
            response.extensions_mut().insert(Retention::Release);
            return Err(TransactionRejection(response));
        };
        match slot.ask::<Db>(lease).await {
            Ok(()) => Ok(Self::new(slot.clone(), Arc::clone(lease))),
            Err(refused) => Err(TransactionRejection(refusal(slot, &refused))),
        }
    }
}

impl<S: Sync, Db: TransactionDatabase> OptionalFromRequestParts<S> for Transaction<Db> {
    type Rejection = TransactionRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, TransactionRejection> {
        if parts.extensions.get::<Execution>().is_none() {
            return Ok(None);
        }
        let found = <Self as FromRequestParts<S>>::from_request_parts(parts, state).await;
        found.map(Some)
    }
}
