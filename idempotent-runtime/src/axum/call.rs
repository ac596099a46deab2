//! The arguments of an annotated handler, as axum sees them.

use std::{
    convert::Infallible,
    fmt,
    future::{Ready, ready},
    marker::PhantomData,
};

use ::axum::{
    extract::{FromRef, FromRequest, FromRequestParts, Request, State},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::arguments::Arguments;
use crate::engine::{BoxFuture, Idempotency};

/// The place of an argument that is extracted later. Keeps the number of arguments what it was.
pub struct Slot<T>(PhantomData<fn() -> T>);

/// No arguments. The name is for two errors, which both say that an argument of this type is missing: of a call
/// without arguments, and of `#[debug_handler]` above the attribute, which makes such a call.
#[derive(Debug)]
pub struct UseInnerToCallDirectlyOrPutDebugHandlerBelow;

/// A request, and how to extract the handler's arguments `T` from it. The engine comes from `E`.
pub struct FromRouter<T, E = FromExtensions> {
    pub(super) request: Request,
    pub(super) engine: Option<Idempotency>,
    pub(super) extraction: Box<dyn Extraction<T>>,
    source: PhantomData<fn() -> E>,
}

/// A request with the router's state, which the attribute named: the arguments and the engine are checked in the
/// function itself, so that a wrong one is reported there and not where the handler is routed.
pub struct OnlyInARouterWithState<S, T> {
    request: Request,
    engine: Option<Idempotency>,
    state: S,
    arguments: PhantomData<fn() -> T>,
}

/// The engine is an extension, or else the one of this process.
#[derive(Debug)]
pub struct FromExtensions;

/// The same. The name is for the errors that show the handler's type: of a direct call, `inner` is the way out; of
/// a route that does not take the handler, `state` finds the reason.
#[derive(Debug)]
pub struct AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly;

/// The engine, out of the router's state.
#[diagnostic::on_unimplemented(
    message = "there is no engine in the state `{S}` by way of `{Self}`",
    label = "expected `State<T>` with a `T` that the state `{S}` has and that is an `Idempotency`",
    note = "implement `FromRef<{S}>` for `Idempotency` and write `engine = State<Idempotency>`",
    note = "for a router with several engines, write `State<T>` with a type of your own: it implements \
            `FromRef<{S}>`, and `Idempotency` implements `From<T>`"
)]
pub trait EngineIn<S> {
    /// Nothing where it is not in the state.
    fn engine(state: &S) -> Option<Idempotency>;
}

/// Calls the handler with its arguments. A plain function: what a handler adds to the compiled code is that and
/// its own future.
pub(super) type Then<T> = fn(T) -> BoxFuture<Response>;

/// Extracts a handler's arguments; of the router's state, only the step itself knows the type.
pub(super) trait Extraction<T>: Start {
    /// Sets what is called with them.
    fn then(&mut self, then: Then<T>);
}

/// A step whose arguments nobody needs to know any more.
pub(super) trait Start: Send {
    /// Extracts the arguments and calls what was set, whose future is not polled here: so there is one state
    /// less to compile for each handler.
    fn start(self: Box<Self>, request: Request) -> BoxFuture<Extracted>;
}

/// The handler's future, or the rejection of an extractor.
pub(super) type Extracted = Result<BoxFuture<Response>, Response>;

/// Distinguishes the one way in which a [`FromRouter`] is extracted for each way `M` in which its arguments are.
#[derive(Debug)]
pub struct Via<M>(PhantomData<fn() -> M>);

/// The step for the state `S` and arguments that are extracted by way of `M`.
struct Extract<S, M, T> {
    state: S,
    then: Option<Then<T>>,
    way: PhantomData<fn() -> M>,
}

/// The step for the state `S` and arguments that are extracted one by one.
struct ExtractEach<S, A: Arguments<S>> {
    state: S,
    then: Option<Then<A::Values>>,
}

#[diagnostic::do_not_recommend]
impl<S> EngineIn<S> for FromExtensions {
    fn engine(_: &S) -> Option<Idempotency> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<S> EngineIn<S> for AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly {
    fn engine(_: &S) -> Option<Idempotency> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<S, T: FromRef<S> + Into<Idempotency>> EngineIn<S> for State<T> {
    fn engine(state: &S) -> Option<Idempotency> {
        Some(T::from_ref(state).into())
    }
}

#[diagnostic::do_not_recommend]
impl<S: Sync, T> FromRequestParts<S> for Slot<T> {
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

impl<S, M, T, E> FromRequest<S, Via<M>> for FromRouter<T, E>
where
    S: Clone + Send + Sync + 'static,
    M: 'static,
    T: FromRequest<S, M> + 'static,
    E: EngineIn<S>,
{
    type Rejection = Infallible;

    fn from_request(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        let engine = E::engine(state);
        let extraction = Box::new(Extract {
            state: state.clone(),
            then: None,
            way: PhantomData::<fn() -> M>,
        });
        arrived(Self {
            request,
            engine,
            extraction,
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

    /// Fixes what is extracted from the request.
    pub fn extracting<A>(self, _: A) -> FromRouter<A::Values>
    where
        A: Arguments<S> + 'static,
    {
        let Self {
            request,
            engine,
            state,
            ..
        } = self;
        let extraction = Box::new(ExtractEach::<S, A> { state, then: None });
        FromRouter {
            request,
            engine,
            extraction,
            source: PhantomData,
        }
    }
}

/// How to find the engine in the state, checked at the place of the call.
#[must_use]
pub fn engine<S, E: EngineIn<S>>(state: &S) -> Option<Idempotency> {
    E::engine(state)
}

impl<S, M, T> Extraction<T> for Extract<S, M, T>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
{
    fn then(&mut self, then: Then<T>) {
        self.then = Some(then);
    }
}

impl<S, M, T> Start for Extract<S, M, T>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
{
    fn start(self: Box<Self>, request: Request) -> BoxFuture<Extracted> {
        let Self { state, then, .. } = *self;
        let then = chosen(then);
        Box::pin(async move {
            match T::from_request(request, &state).await {
                Ok(arguments) => Ok(then(arguments)),
                Err(rejection) => Err(rejection.into_response()),
            }
        })
    }
}

impl<S, A> Extraction<A::Values> for ExtractEach<S, A>
where
    S: Send + Sync + 'static,
    A: Arguments<S> + 'static,
{
    fn then(&mut self, then: Then<A::Values>) {
        self.then = Some(then);
    }
}

impl<S, A> Start for ExtractEach<S, A>
where
    S: Send + Sync + 'static,
    A: Arguments<S> + 'static,
{
    fn start(self: Box<Self>, request: Request) -> BoxFuture<Extracted> {
        let Self { state, then } = *self;
        let then = chosen(then);
        Box::pin(async move { A::extract(request, &state).await.map(then) })
    }
}

/// What was set before the start.
fn chosen<T>(then: Option<Then<T>>) -> Then<T> {
    then.expect("what follows extraction is set before extraction starts")
}

/// Extracts what needs no extraction.
fn arrived<T>(value: T) -> Ready<Result<T, Infallible>> {
    ready(Ok(value))
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl<T, E> fmt::Debug for FromRouter<T, E> {
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
