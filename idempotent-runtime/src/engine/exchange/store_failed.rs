//! A claim that the store did not acknowledge.

use http::Response;
use tokio::time::Instant;

use super::state::{Exchange, KeyedRequest};
use crate::{
    engine::{
        body::ResponseBody,
        core::{on_store_error::OnStoreError, store_client::AcquireError, withdraw::withdraw},
        handler::{Handler, HandlerResult},
        reply::{Reply, first_hand},
    },
    execution::Execution,
    observe::RequestResult,
    problem::ProblemCode,
    store::{Claim, StoreErrorKind},
};

impl Exchange {
    /// The store gave no answer about the key: the handler does not start, unless `on_store_error` says so.
    pub(super) async fn store_failed<H: Handler>(
        &mut self,
        failed: &AcquireError,
        claim: Claim,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> (RequestResult, Reply<H::Body>) {
        let refused = self.not_claimed(failed, &claim);
        let kind = failed.error.kind();
        let unreachable = !matches!(kind, StoreErrorKind::Full | StoreErrorKind::Corrupt);
        if unreachable && self.core.on_store_error == OnStoreError::Execute {
            tracing::warn!(key = %claim.key, "executing WITHOUT idempotency, as `on_store_error` says");
            let reply = self.unprotected(&claim, request, handler).await;
            return (RequestResult::Unprotected, reply);
        }
        refused
    }

    /// The store did not acknowledge the claim. If it answered before that another request has the key, or that an
    /// execution crashed, the handler does not start, whatever `on_store_error` says: the effect may have happened.
    pub(super) fn not_claimed<B>(
        &self,
        failed: &AcquireError,
        claim: &Claim,
    ) -> (RequestResult, Reply<B>) {
        let AcquireError { error, in_doubt } = failed;
        tracing::error!(error = error as &dyn std::error::Error, key = %claim.key, "the key could not be claimed");
        if *in_doubt {
            withdraw(&self.core, claim.held(), claim.take_over);
        }
        let code = match error.kind() {
            StoreErrorKind::Full => ProblemCode::Overloaded,
            StoreErrorKind::Corrupt => ProblemCode::RecordUnreadable,
            _ => ProblemCode::StoreUnavailable,
        };
        self.refuse_as(code)
    }

    /// Runs the handler without a lease.
    async fn unprotected<H: Handler>(
        &mut self,
        claim: &Claim,
        request: Box<KeyedRequest>,
        handler: H,
    ) -> Response<ResponseBody<H::Body>> {
        let (key, mut request) = request.into_parts();
        let execution = Execution::new(
            std::sync::Arc::clone(&self.core.digester),
            key,
            claim.key,
            1,
            Instant::now(),
        );
        request.extensions_mut().insert(execution);
        match handler.call(request).await {
            HandlerResult::Returned(response) | HandlerResult::Rejected(response) => {
                first_hand(&self.core, response).map(ResponseBody::live)
            }
            HandlerResult::Failed => self.refuse_as(ProblemCode::OutcomeUnknown).1,
        }
    }
}
