//! The arguments of an annotated handler, as axum sees them.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    marker::PhantomData,
    pin::Pin,
};

use ::axum::{
    extract::{FromRef, FromRequest, FromRequestParts, Request},
    http::request::Parts,
};

use super::{
    arguments::{Argument, Arguments, ExtractFromParts},
    caller::{Anyone, FindsCaller, step},
    extraction::{Given, Start, one_by_one, together},
    hints::{EngineIn, OnlyInARouterWithState, UseInnerToCallDirectlyOrPutDebugHandlerBelow},
    recovery_step::RecoveryStep,
};
use crate::{caller::Caller, engine::Idempotency};

/// Stands for an argument that is extracted later, so that the number of arguments stays what it was.
pub struct Placeholder<T>(PhantomData<fn() -> T>);

/// A request, and how to extract the handler's arguments `T` from it. The engine comes from `E`, the caller from `C`.
pub struct FromRouter<T, E = FromExtensions, C = Anyone> {
    pub(super) request: Request,
    pub(super) engine: Option<Idempotency>,
    pub(super) extraction: Pin<Box<dyn Start>>,
    arguments: PhantomData<fn() -> T>,
    source: PhantomData<fn() -> (E, C)>,
}

/// The engine is an extension of the request or, if there is none, the one of this process.
#[derive(Debug)]
pub struct FromExtensions;

/// The marker of [`FromRequest`] for a [`FromRouter`] whose arguments are extracted with the marker `M`.
#[derive(Debug)]
pub struct Via<M>(PhantomData<fn() -> M>);

#[diagnostic::do_not_recommend]
impl<S> EngineIn<S> for FromExtensions {
    fn engine(_: &S) -> Option<Idempotency> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync, T> FromRequestParts<S> for Placeholder<T> {
    type Rejection = Infallible;

    fn from_request_parts(
        _: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        arrived(Self(PhantomData))
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync> FromRequestParts<S> for UseInnerToCallDirectlyOrPutDebugHandlerBelow {
    type Rejection = Infallible;

    fn from_request_parts(
        _: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        arrived(Self)
    }
}

impl<S, M, T, E, C> FromRequest<S, Via<M>> for FromRouter<T, E, C>
where
    S: Clone + Send + Sync + 'static,
    M: 'static,
    T: FromRequest<S, M> + 'static,
    E: EngineIn<S>,
    C: FindsCaller<S>,
{
    type Rejection = Infallible;

    fn from_request(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        let engine = E::engine(state);
        let extraction = together::<S, M, T>(Given {
            state: state.clone(),
            caller: C::STEP,
            recovery: None,
        });
        arrived(Self {
            request,
            engine,
            extraction,
            arguments: PhantomData,
            source: PhantomData,
        })
    }
}

impl<R, S, T> FromRequest<R, Via<()>> for OnlyInARouterWithState<S, T>
where
    R: Sync,
    S: FromRef<R> + Send,
{
    type Rejection = Infallible;

    fn from_request(
        request: Request,
        state: &R,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        arrived(Self {
            request,
            engine: None,
            caller: None,
            recovery: None,
            state: S::from_ref(state),
            arguments: PhantomData,
        })
    }
}

impl<S, T> OnlyInARouterWithState<S, T>
where
    S: Send + Sync + 'static,
{
    /// Takes the engine from the state.
    #[must_use]
    pub fn engine(mut self, find: fn(&S) -> Option<Idempotency>) -> Self {
        self.engine = find(&self.state);
        self
    }

    /// Takes the caller from this extractor.
    #[must_use]
    pub fn caller<C, V>(mut self, _: Argument<C, V>) -> Self
    where
        S: Clone,
        C: Caller + 'static,
        V: ExtractFromParts<S, C> + 'static,
    {
        self.caller = Some(step::<S, C, V>);
        self
    }

    /// Asks this function, with the state, what became of a crashed execution.
    #[must_use]
    pub fn recovering(mut self, step: RecoveryStep<S>) -> Self {
        self.recovery = Some(step);
        self
    }

    /// Fixes what is extracted from the request.
    pub fn extracting<A>(self, _: A) -> FromRouter<A::Values>
    where
        A: Arguments<S> + 'static,
    {
        let Self {
            request,
            engine,
            caller,
            recovery,
            state,
            ..
        } = self;
        let extraction = one_by_one::<S, A>(Given {
            state,
            caller,
            recovery,
        });
        FromRouter {
            request,
            engine,
            extraction,
            arguments: PhantomData,
            source: PhantomData,
        }
    }
}

/// A future that is ready, because nothing is extracted.
fn arrived<T>(value: T) -> Ready<Result<T, Infallible>> {
    ready(Ok(value))
}

impl<T> fmt::Debug for Placeholder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Placeholder")
    }
}

impl<T, E, C> fmt::Debug for FromRouter<T, E, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromRouter").finish_non_exhaustive()
    }
}

impl<S, T> fmt::Debug for OnlyInARouterWithState<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnlyInARouterWithState")
            .finish_non_exhaustive()
    }
}
