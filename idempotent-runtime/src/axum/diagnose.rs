//! Traits that hold exactly when axum's do, and say it in words of their own when they do not.
//!
//! `do_not_recommend` keeps the compiler from looking through the blanket implementations and reporting the
//! trait behind them.

use ::axum::{
    extract::{FromRequest, FromRequestParts},
    response::{IntoResponse, Response},
};

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no response, so an idempotent handler cannot return it",
    label = "expected a type that implements `IntoResponse`",
    note = "return `Json<{Self}>` to send a value as JSON, `impl IntoResponse` for tuples such as \
            `(StatusCode, Json<…>)`, or implement `axum::response::IntoResponse`",
    note = "in a `Result<T, E>` both `T` and `E` must be responses"
)]
pub trait Answer {
    /// As a response.
    fn into_answer(self) -> Response;
}

#[diagnostic::do_not_recommend]
impl<T: IntoResponse> Answer for T {
    fn into_answer(self) -> Response {
        self.into_response()
    }
}

/// Makes the response of what a handler returned.
pub fn answer<T: Answer>(returned: T) -> Response {
    returned.into_answer()
}

/// An argument that is not the last: it leaves the body alone.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor for the state `{S}` that leaves the request's body alone",
    label = "expected a type that implements `FromRequestParts<{S}>`",
    note = "an argument of a handler is an extractor, such as `State<…>`, `Path<…>`, `Query<…>` or `HeaderMap`",
    note = "one that uses up the body, such as `Json<…>`, can only be the last argument"
)]
pub trait Part<S> {
    /// The argument itself.
    type Argument;
}

#[diagnostic::do_not_recommend]
impl<S, T: FromRequestParts<S>> Part<S> for T {
    type Argument = T;
}

/// The last argument: it may use up the body.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no extractor for the state `{S}`",
    label = "expected a type that implements `FromRequest<{S}>` or `FromRequestParts<{S}>`",
    note = "an argument of a handler is an extractor, such as `State<…>`, `Path<…>`, `Json<…>` or `Bytes`",
    note = "`Json<{Self}>` reads the value from a JSON body, `State<{Self}>` takes it from the router's state"
)]
pub trait Last<S, M> {
    /// The argument itself.
    type Argument;
}

#[diagnostic::do_not_recommend]
impl<S, M, T: FromRequest<S, M>> Last<S, M> for T {
    type Argument = T;
}
