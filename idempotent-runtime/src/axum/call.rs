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

use crate::engine::{BoxFuture, Idempotency};

/// The place of an argument that is extracted later. Keeps the number of arguments what it was.
pub struct Slot<T>(PhantomData<fn() -> T>);

/// A request, and how to extract the handler's arguments `T` from it. The engine comes from `E`.
pub struct Call<T, E: EngineSource = FromExtensions> {
    pub(super) request: Request,
    pub(super) engine: Option<Idempotency>,
    pub(super) extraction: Box<dyn Extraction<T>>,
    source: PhantomData<fn() -> E>,
}

/// A request with the router's state, which the attribute named: the arguments are checked in the function
/// itself, so that a wrong one is reported there and not where the handler is routed.
pub struct StatefulCall<S, E: EngineSource = FromExtensions> {
    request: Request,
    engine: Option<Idempotency>,
    state: S,
    source: PhantomData<fn() -> E>,
}

/// The engine is an extension, or else the one of this process.
#[derive(Debug)]
pub struct FromExtensions;

/// Where a route finds its engine.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say where the engine is",
    label = "expected `State<Idempotency>`",
    note = "`engine = State<Idempotency>` takes the engine from the router's state; without the option it is an \
            `Extension<Idempotency>`",
    note = "`State<T>` may also hold any `T: Into<Idempotency>`, for routers with several engines"
)]
pub trait EngineSource {}

/// The engine, out of the router's state.
pub trait EngineIn<S>: EngineSource {
    /// Nothing where it is not in the state.
    fn engine(state: &S) -> Option<Idempotency>;
}

/// Extracts a handler's arguments; of the router's state, only the step itself knows the type.
pub(super) trait Extraction<T>: Send {
    /// Extracts them, once.
    fn start(self: Box<Self>, request: Request) -> BoxFuture<Result<T, Response>>;
}

/// Distinguishes the one way in which a [`Call`] is extracted for each way `M` in which its arguments are.
#[derive(Debug)]
pub struct Via<M>(PhantomData<fn() -> M>);

/// The step for the state `S` and arguments that are extracted by way of `M`.
struct Extract<S, M>(S, PhantomData<fn() -> M>);

impl EngineSource for FromExtensions {}

impl<T: Into<Idempotency>> EngineSource for State<T> {}

impl<S> EngineIn<S> for FromExtensions {
    fn engine(_: &S) -> Option<Idempotency> {
        None
    }
}

impl<S, T: FromRef<S> + Into<Idempotency>> EngineIn<S> for State<T> {
    fn engine(state: &S) -> Option<Idempotency> {
        Some(T::from_ref(state).into())
    }
}

impl<S: Sync, T> FromRequestParts<S> for Slot<T> {
    type Rejection = Infallible;

    fn from_request_parts(
        _: &mut Parts,
        _: &S,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        ready(Ok(Self(PhantomData)))
    }
}

impl<S, M, T, E> FromRequest<S, Via<M>> for Call<T, E>
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
        let extraction = Box::new(Extract(state.clone(), PhantomData::<fn() -> M>));
        arrived(Self {
            request,
            engine,
            extraction,
            source: PhantomData,
        })
    }
}

impl<R, S, E> FromRequest<R, Via<()>> for StatefulCall<S, E>
where
    R: Sync,
    S: FromRef<R> + Send,
    E: EngineIn<R>,
{
    type Rejection = Infallible;

    fn from_request(
        request: Request,
        state: &R,
    ) -> impl Future<Output = Result<Self, Infallible>> + Send {
        let engine = E::engine(state);
        arrived(Self {
            request,
            engine,
            state: S::from_ref(state),
            source: PhantomData,
        })
    }
}

impl<S, E: EngineSource> StatefulCall<S, E>
where
    S: Send + Sync + 'static,
{
    /// Fixes what is extracted from the request.
    pub fn extracting<T, M>(self) -> Call<T, E>
    where
        T: FromRequest<S, M> + 'static,
        M: 'static,
    {
        let Self {
            request,
            engine,
            state,
            source,
        } = self;
        Call {
            request,
            engine,
            extraction: Box::new(Extract(state, PhantomData::<fn() -> M>)),
            source,
        }
    }
}

impl<S, M, T> Extraction<T> for Extract<S, M>
where
    S: Send + Sync + 'static,
    T: FromRequest<S, M> + 'static,
{
    fn start(self: Box<Self>, request: Request) -> BoxFuture<Result<T, Response>> {
        let Self(state, _) = *self;
        Box::pin(async move {
            T::from_request(request, &state)
                .await
                .map_err(IntoResponse::into_response)
        })
    }
}

fn arrived<T>(call: T) -> Ready<Result<T, Infallible>> {
    ready(Ok(call))
}

impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}

impl<T, E: EngineSource> fmt::Debug for Call<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

impl<S, E: EngineSource> fmt::Debug for StatefulCall<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatefulCall").finish_non_exhaustive()
    }
}
