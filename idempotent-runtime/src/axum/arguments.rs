//! Arguments that are checked one by one, for a router's state that the attribute named (`state = App`).
//!
//! The generated code calls [`part`](super::checks::part) or [`last`](super::checks::last) for each, at the place of
//! the argument's type, which checks it and finds the `V` by which it is extracted. Extraction then asks only what
//! that `V` can do: where there is none, the compiler has reported the argument already and has nothing to add.

use std::{fmt, future::Future, marker::PhantomData};

use ::axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::hints::{
    UseInnerToCallDirectlyOrPutDebugHandlerBelow as NoArguments, ViaParts, ViaRequest,
};

/// The type of an argument and the way in which it is extracted, as a value.
pub struct Argument<T, V>(PhantomData<fn() -> (T, V)>);

impl<T, V> Argument<T, V> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

/// A way to extract `T` that leaves the body alone.
pub trait ExtractFromParts<S, T> {
    /// Extracts it.
    fn extract(parts: &mut Parts, state: &S) -> impl Future<Output = Result<T, Response>> + Send;
}

/// A way to extract `T`.
pub trait ExtractFromRequest<S, T> {
    /// Extracts it.
    fn extract(request: Request, state: &S) -> impl Future<Output = Result<T, Response>> + Send;
}

impl<S: Sync, T: FromRequestParts<S>> ExtractFromParts<S, T> for ViaParts {
    async fn extract(parts: &mut Parts, state: &S) -> Result<T, Response> {
        T::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)
    }
}

impl<S: Sync, T: FromRequestParts<S>> ExtractFromRequest<S, T> for ViaParts {
    async fn extract(request: Request, state: &S) -> Result<T, Response> {
        let mut parts = request.into_parts().0;
        T::from_request_parts(&mut parts, state)
            .await
            .map_err(IntoResponse::into_response)
    }
}

impl<S: Sync, T: FromRequest<S>> ExtractFromRequest<S, T> for ViaRequest {
    async fn extract(request: Request, state: &S) -> Result<T, Response> {
        T::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)
    }
}

/// All arguments of a handler.
pub trait Arguments<S> {
    /// Their values.
    type Values;

    /// Extracts them, in their order.
    fn extract(
        request: Request,
        state: &S,
    ) -> impl Future<Output = Result<Self::Values, Response>> + Send;
}

impl<S: Sync> Arguments<S> for () {
    type Values = NoArguments;

    async fn extract(_: Request, _: &S) -> Result<NoArguments, Response> {
        Ok(NoArguments)
    }
}

macro_rules! arguments {
    ($($part:ident $via:ident)*) => {
        impl<S, L, LV, $($part, $via),*> Arguments<S> for ($(Argument<$part, $via>,)* Argument<L, LV>,)
        where
            S: Sync,
            $($part: Send, $via: ExtractFromParts<S, $part>,)*
            LV: ExtractFromRequest<S, L>,
        {
            type Values = ($($part,)* L,);

            #[allow(non_snake_case, unused_mut, reason = "for any number of arguments")]
            async fn extract(request: Request, state: &S) -> Result<Self::Values, Response> {
                let (mut parts, body) = request.into_parts();
                $(let $part = $via::extract(&mut parts, state).await?;)*
                let last = LV::extract(Request::from_parts(parts, body), state).await?;
                Ok(($($part,)* last,))
            }
        }
    };
}

/// For all of them, for all but the first, … down to none.
macro_rules! each_suffix {
    () => { arguments!(); };
    ($part:ident $via:ident $($rest:ident)*) => {
        arguments!($part $via $($rest)*);
        each_suffix!($($rest)*);
    };
}

// As many as axum supports, with the last one.
each_suffix!(
    A1 V1 A2 V2 A3 V3 A4 V4 A5 V5 A6 V6 A7 V7 A8 V8 A9 V9 A10 V10 A11 V11 A12 V12 A13 V13 A14 V14
    A15 V15
);

impl<T, V> fmt::Debug for Argument<T, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Argument")
    }
}
