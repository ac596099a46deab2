//! Who calls, found by an extractor.

use std::{future::Future, marker::PhantomData, pin::Pin};

use ::axum::{
    Extension,
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::{
    arguments::ExtractFromParts,
    caller_step::{CallerFuture, CallerStep},
};
use crate::{
    caller::{Caller, boxed},
    scope::Scope,
};

/// Whether a handler names its caller.
pub trait FindsCaller<S> {
    /// The step, if it does.
    const STEP: Option<CallerStep<S>>;
}

/// Nobody is asked who calls.
#[derive(Debug)]
pub struct Anyone;

/// The caller is what this extractor extracts.
///
/// It is part of a handler's type, so that the compiler names it, and with it the option, where a handler is routed whose
/// caller is not an extractor for the router's state.
#[derive(Debug)]
pub struct CallerIs<C>(PhantomData<fn() -> C>);

impl<S> FindsCaller<S> for Anyone {
    const STEP: Option<CallerStep<S>> = None;
}

impl<S, C> FindsCaller<S> for CallerIs<C>
where
    S: Clone + Send + Sync + 'static,
    C: FromRequestParts<S> + Caller + 'static,
{
    const STEP: Option<CallerStep<S>> = Some(step::<S, C, super::hints::ViaParts>);
}

/// Extracts the caller. The state is cloned, since the request may outlive the router's borrow of it.
pub(super) fn step<S, C, V>(mut head: Parts, state: &S) -> CallerFuture
where
    S: Clone + Send + Sync + 'static,
    C: Caller + 'static,
    V: ExtractFromParts<S, C> + 'static,
{
    let state = state.clone();
    CallerFuture::new(async move {
        match V::extract(&mut head, &state).await {
            Ok(caller) => Ok((head, caller.scope())),
            Err(rejection) => Err(boxed(rejection)),
        }
    })
}

/// What [`extractor`]'s function returns.
type Found = Pin<Box<dyn Future<Output = Result<(Parts, Scope), Response>> + Send>>;

/// Finds out who calls by an axum extractor, with the router's state: for [`IdempotencyLayer::caller`] and
/// [`Builder::caller`]. On an annotated handler, the option `caller` does it.
///
/// The extractor's rejection is the answer to a request that is not let in. What it inserts into the request's
/// extensions stays there.
///
/// [`IdempotencyLayer::caller`]: crate::IdempotencyLayer::caller
/// [`Builder::caller`]: crate::Builder::caller
pub fn extractor<C, S>(state: S) -> impl Fn(Parts) -> Found + Send + Sync + 'static
where
    S: Clone + Send + Sync + 'static,
    C: FromRequestParts<S> + Caller + 'static,
{
    move |mut head| {
        let state = state.clone();
        Box::pin(async move {
            match C::from_request_parts(&mut head, &state).await {
                Ok(caller) => Ok((head, caller.scope())),
                Err(rejection) => Err(rejection.into_response()),
            }
        })
    }
}

impl<T: Caller> Caller for Extension<T> {
    fn scope(&self) -> Scope {
        self.0.scope()
    }
}
