//! What a handler returns, and what to say when that is no response.

use ::axum::response::{IntoResponse, Response};

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no response, so an idempotent handler cannot return it",
    label = "expected a type that implements `IntoResponse`",
    note = "a value is sent as `Json<T>`, in a tuple too: `(StatusCode, Json<T>)`",
    note = "in a `Result<T, E>` both `T` and `E` must be responses",
    note = "implement `axum::response::IntoResponse` for a type of your own, an error type too"
)]
pub trait Answer {
    /// As a response.
    fn into_answer(self) -> Response;
}

// Holds exactly when axum's trait does. Without `do_not_recommend` the compiler would look through it and report
// that one.
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
