//! A claim that the store did not acknowledge.

use std::sync::Arc;

use http::Request;
use tokio::time::{Instant, timeout};

use super::state::{Claiming, Exchange, KeyedRequest};
use crate::{
    catch_unwind::{Panicked, catch_unwind, catching_unpin, drop_catching},
    engine::{
        body::ResponseBody,
        core::on_store_error::OnStoreError,
        handler::{Handler, HandlerResult, NotReady, ready},
        reply::first_hand,
        run::Answered,
    },
    execution::Execution,
    observe::RequestResult,
    problem::{Problem, ProblemCode},
    store::{StoreError, StoreErrorKind},
};

impl Exchange {
    /// The store gave no answer about the key: the handler does not start, unless `on_store_error` says so and the request
    /// may execute. It may not if the store answered before that another request has the key, or that an execution
    /// crashed: then the effect may have happened.
    pub(super) async fn store_failed<H: Handler>(
        &mut self,
        error: StoreError,
        claiming: Box<Claiming>,
        request: Box<KeyedRequest>,
        handler: H,
        may_execute: bool,
    ) -> Answered<H::Body> {
        let claim = &claiming.claim;
        tracing::error!(error = &error as &dyn std::error::Error, key = %claim.key, "the key could not be claimed");
        let unreachable = !matches!(error.kind(), StoreErrorKind::Full | StoreErrorKind::Corrupt);
        if may_execute && unreachable && self.core.on_store_error == OnStoreError::Execute {
            tracing::warn!(key = %claim.key, "executing WITHOUT idempotency, as `on_store_error` says");
            // A shutdown waits for this execution too.
            let Some(_admission) = self.core.in_flight.admit() else {
                drop_catching((request, handler));
                return self.refuse_as(ProblemCode::Overloaded);
            };
            self.must_finish();
            return self.unprotected(&claiming, request, handler).await;
        }
        drop_catching((request, handler));
        self.refuse_as(match error.kind() {
            StoreErrorKind::Full => ProblemCode::Overloaded,
            StoreErrorKind::Corrupt => ProblemCode::RecordUnreadable,
            _ => ProblemCode::StoreUnavailable,
        })
    }

    /// Runs the handler without a lease.
    async fn unprotected<H: Handler>(
        &mut self,
        claiming: &Claiming,
        request: Box<KeyedRequest>,
        mut handler: H,
    ) -> Answered<H::Body> {
        match timeout(claiming.claim.lease, ready(&mut handler, || {})).await {
            Ok(Ok(())) => {}
            // As long as with a lease. Where the service failed, its client gets the error, which the adapter has, instead
            // of this answer.
            Err(_) | Ok(Err(NotReady::Failed)) => {
                drop_catching((request, handler));
                return self.refuse_as(ProblemCode::Overloaded);
            }
            Ok(Err(NotReady::Panicked)) => {
                drop_catching((request, handler));
                return self.refuse(&Problem::panicked_before_the_handler());
            }
        }
        let KeyedRequest { identified, head } = *request;
        let lease = self.lease((1, Instant::now()), claiming, identified.key, &head);
        let mut request = Request::from_parts(head, identified.body);
        lease.lose();
        let execution = Execution::new(Arc::new(lease));
        request.extensions_mut().insert(execution);
        let result = match catch_unwind(|| handler.call(request)) {
            Ok(called) => catching_unpin(called).await,
            Err(panicked) => Err(panicked),
        };
        match result {
            Ok(HandlerResult::Returned(response) | HandlerResult::Rejected(response)) => {
                let response = first_hand(&self.core, response).map(ResponseBody::live);
                (RequestResult::Unprotected, response)
            }
            Ok(HandlerResult::ExtractorPanicked) => {
                self.refuse(&Problem::panicked_before_the_handler())
            }
            Ok(HandlerResult::NotStarted) => self.refuse_as(ProblemCode::Overloaded),
            Ok(HandlerResult::Failed) => self.refuse_as(ProblemCode::OutcomeUnknown),
            Err(Panicked) => self.refuse_as(ProblemCode::HandlerPanicked),
        }
    }
}
