//! The operation as the engine's handler.

use std::{
    future::{Future, ready},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use super::error::{NotDone, OnceError};
use crate::{
    body::Body,
    caller::Authentication,
    engine::{BoxFuture, Handler, HandlerResult, Retention},
    execution::Execution,
    route::{Routed, Routing},
    scope::Scope,
};

/// There is no router around an operation.
static NO_ROUTING: Routing = Routing {
    routed: |_| Routed {
        template: None,
        original: None,
    },
    body_limit: |_| usize::MAX,
};

/// An operation that is called at most once.
pub(super) struct Operation<F, E> {
    pub(super) run: F,
    pub(super) scope: Scope,
    pub(super) aside: Aside<E>,
}

/// What is for the caller of `run` alone and passes the engine by: an error that is no outcome.
pub(super) struct Aside<E>(Arc<Mutex<Option<OnceError<E>>>>);

impl<T, E, F, R> Handler for Operation<F, E>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    E: Serialize + DeserializeOwned + Send + 'static,
    F: FnOnce(Execution) -> R + Send + 'static,
    R: Future<Output = Result<T, NotDone<E>>> + Send + 'static,
{
    type Body = Body;
    type Future = BoxFuture<HandlerResult<Body>>;

    const ROUTING: &'static Routing = &NO_ROUTING;

    fn has_caller(&self) -> bool {
        true
    }

    /// Whose operation it is was said with the key: nobody else is asked.
    fn authenticate(&self, head: Parts) -> Authentication {
        Authentication::Pending(Box::pin(ready(Ok((head, self.scope.clone())))))
    }

    fn call(self, request: Request<Bytes>) -> Self::Future {
        let Self { run, aside, .. } = self;
        Box::pin(async move {
            // Invariant: the engine calls a handler with its execution.
            let execution = Execution::from_extensions(request.extensions());
            let execution = execution.expect("a handler has an execution").clone();
            match run(execution).await {
                Ok(value) => aside.outcome(&Ok::<T, E>(value)),
                Err(NotDone::Failed(error)) => aside.outcome(&Err::<T, E>(error)),
                Err(NotDone::Nothing(error)) => {
                    aside.set(OnceError::Nothing(error));
                    no_outcome(Retention::Release)
                }
                Err(NotDone::Unknown(error)) => {
                    aside.set(OnceError::Unknown(error));
                    no_outcome(Retention::Unknown)
                }
            }
        })
    }
}

/// Ends the execution without an outcome. Nobody reads the response.
fn no_outcome(retention: Retention) -> HandlerResult<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response.extensions_mut().insert(retention);
    HandlerResult::Returned(response)
}

impl<E> Aside<E> {
    pub(super) fn take(&self) -> Option<OnceError<E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: OnceError<E>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The outcome as a response. One that JSON cannot say is not known to anybody, and what was done is done.
    fn outcome<T: Serialize>(&self, outcome: &Result<T, impl Serialize>) -> HandlerResult<Body> {
        let status = match outcome {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        match serde_json::to_vec(outcome) {
            Ok(json) => {
                let mut response = Response::new(Body::from(json));
                *response.status_mut() = status;
                response.extensions_mut().insert(Retention::Store);
                HandlerResult::Returned(response)
            }
            Err(error) => {
                self.set(OnceError::Outcome(error));
                HandlerResult::Failed
            }
        }
    }
}

impl<E> Default for Aside<E> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E> Clone for Aside<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
