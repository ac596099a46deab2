//! Arguments that are checked one by one, for a router's state that the attribute named (`state = App`).
//!
//! The generated code calls [`part`] or [`last`] for each, at the place of the argument's type, which checks it
//! in the words of [`Part`] and [`Last`] and finds the way in which it is extracted. Extraction then asks only
//! what that [`HeadWay`] or [`Way`] can do: where none was found, the compiler has reported the argument already
//! and has nothing to add.

use std::{fmt, future::Future, marker::PhantomData};

use ::axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
    response::{IntoResponse, Response},
};

use super::call::UseInnerToCallDirectlyOrPutDebugHandlerBelow as NoArguments;

/// The type of an argument and the way in which it is extracted, as a value.
pub struct Argument<T, W>(PhantomData<fn() -> (T, W)>);

/// Out of the request's head.
#[derive(Debug)]
pub enum ByHead {}

/// Out of the whole request.
#[derive(Debug)]
pub enum ByRequest {}

/// Nothing is extracted so.
#[derive(Debug)]
pub enum ByMagic {}

/// An argument that is not the last: it leaves the body alone.
///
/// That there are two ways keeps the compiler from settling on the one and reporting what that lacks.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor for the state `{S}` that leaves the request's body alone",
    label = "expected a type that implements `FromRequestParts<{S}>`",
    note = "an argument of a handler is an extractor, such as `State<…>`, `Path<…>`, `Query<…>` or `HeaderMap`",
    note = "one that uses up the body, such as `Json<…>`, can only be the last argument",
    note = "`State<T>` needs the router's state to be `T`, or `T: FromRef<{S}>`"
)]
pub trait Part<S, W> {}

/// The last argument: it may use up the body.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor for the state `{S}`",
    label = "expected a type that implements `FromRequest<{S}>` or `FromRequestParts<{S}>`",
    note = "an argument of a handler is an extractor, such as `State<…>`, `Path<…>`, `Json<…>` or `Bytes`",
    note = "`Json<T>` needs `T: serde::Deserialize`, `State<T>` needs the router's state to be `T`, or `T: FromRef<{S}>`"
)]
pub trait Last<S, W> {}

/// Nobody implements it.
pub trait Magic: Sized {
    /// Cannot be called.
    fn never<T>(self) -> T;
}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequestParts<S>> Part<S, ByHead> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: Magic> Part<S, ByMagic> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequestParts<S>> Last<S, ByHead> for T {}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequest<S>> Last<S, ByRequest> for T {}

/// Checks an argument that is not the last.
#[must_use]
pub fn part<S, T: Part<S, W>, W>() -> Argument<T, W> {
    Argument(PhantomData)
}

/// Checks the last argument.
#[must_use]
pub fn last<S, T: Last<S, W>, W>() -> Argument<T, W> {
    Argument(PhantomData)
}

/// A way to extract `T` that leaves the body alone.
pub trait HeadWay<S, T> {
    /// Extracts it.
    fn extract(parts: &mut Parts, state: &S) -> impl Future<Output = Result<T, Response>> + Send;
}

/// A way to extract `T`.
pub trait Way<S, T> {
    /// Extracts it.
    fn extract(request: Request, state: &S) -> impl Future<Output = Result<T, Response>> + Send;
}

impl<S: Sync, T: FromRequestParts<S>> HeadWay<S, T> for ByHead {
    async fn extract(parts: &mut Parts, state: &S) -> Result<T, Response> {
        T::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)
    }
}

impl<S: Sync, T: FromRequestParts<S>> Way<S, T> for ByHead {
    async fn extract(request: Request, state: &S) -> Result<T, Response> {
        let mut parts = request.into_parts().0;
        T::from_request_parts(&mut parts, state)
            .await
            .map_err(IntoResponse::into_response)
    }
}

impl<S: Sync, T: FromRequest<S>> Way<S, T> for ByRequest {
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
    ($($part:ident $way:ident)*) => {
        impl<S, L, LW, $($part, $way),*> Arguments<S> for ($(Argument<$part, $way>,)* Argument<L, LW>,)
        where
            S: Sync,
            $($part: Send, $way: HeadWay<S, $part>,)*
            LW: Way<S, L>,
        {
            type Values = ($($part,)* L,);

            #[allow(non_snake_case, unused_mut, reason = "for any number of arguments")]
            async fn extract(request: Request, state: &S) -> Result<Self::Values, Response> {
                let (mut parts, body) = request.into_parts();
                $(let $part = $way::extract(&mut parts, state).await?;)*
                let last = LW::extract(Request::from_parts(parts, body), state).await?;
                Ok(($($part,)* last,))
            }
        }
    };
}

/// All of them, all but the first, … down to none.
macro_rules! each_suffix {
    () => { arguments!(); };
    ($part:ident $way:ident $($rest:ident)*) => {
        arguments!($part $way $($rest)*);
        each_suffix!($($rest)*);
    };
}

// As many as axum takes, with the last one.
each_suffix!(
    A1 W1 A2 W2 A3 W3 A4 W4 A5 W5 A6 W6 A7 W7 A8 W8 A9 W9 A10 W10 A11 W11 A12 W12 A13 W13 A14 W14
    A15 W15
);

impl<T, W> fmt::Debug for Argument<T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Argument")
    }
}
