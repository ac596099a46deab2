//! The name of each answer, and what a client does about it.

use std::fmt;

use http::StatusCode;

use super::table::{Row, TABLE};

/// Which of its own answers the engine gave. It is in the extensions of each such response.
///
/// The body is problem details in JSON (RFC 9457). Its member `code` is [`as_str`](Self::as_str); programs compare
/// that one. `type` is the code behind a base: `/problems/idempotency/` by default, which is a path of the service
/// itself and claims nobody's domain. A service whose errors are documented somewhere sets the absolute address of
/// that documentation with [`Builder::problem_type_base`](crate::Builder::problem_type_base).
///
/// `action` tells a program what to do; `retryable` is true exactly where that is `retry_same_key`:
///
/// | action | what to do |
/// |---|---|
/// | `retry_same_key` | send the same request with the same key again, after `Retry-After` if it is there |
/// | `new_key` | the key stands for another request: choose a new key for this one |
/// | `fix_request` | change the request itself |
/// | `none` | nothing: the operation was executed, and this answer is final |
///
/// ## `missing_key`
///
/// Status 400. The route requires an idempotency key and the request has none.
///
/// ## `invalid_key`
///
/// Status 400. The key breaks a rule; the detail says which one. This request was not executed.
///
/// ## `unreadable_body`
///
/// Status 400. The request body ended early or could not be read. This request was not executed, the key is unused.
///
/// ## `request_too_large`
///
/// Status 413. The request body is larger than the route accepts. This request was not executed, the key is unused.
///
/// ## `mismatch`
///
/// Status 409, or 422 in the IETF profile. The key was used for a request that asks for something else.
///
/// ## `conflict`
///
/// Status 409 with `Retry-After`. The request with this key is still being executed.
///
/// ## `outcome_unknown`
///
/// Status 409. An execution began and nobody knows how it ended. The same request with the same key is safe
/// to repeat: it is executed again only if it turns out not to have been, and is answered once the outcome is
/// known. A new key would be a new operation.
///
/// ## `response_not_stored`
///
/// Status 409. The operation was executed, but its response could not be kept: it was too large or endless, or the
/// store did not take it.
///
/// ## `store_unavailable`
///
/// Status 503 with `Retry-After`. This request was not executed, because keys could not be checked. An earlier one
/// with the same key may have been: the retry with the same key tells.
///
/// ## `overloaded`
///
/// Status 503 with `Retry-After`. This request was not executed, because a limit of the server is reached. An
/// earlier one with the same key may have been, or still be running: the retry with the same key tells.
///
/// ## `record_unreadable`
///
/// Status 500. The record under the key cannot be read. The operation may have been executed, and is never
/// executed again with this key.
///
/// ## `handler_panicked`
///
/// Status 500. The operation failed in a way that its code did not foresee. This answer is stored and
/// replayed, unless the route executes again after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemCode {
    /// No key where one is required.
    MissingKey,
    /// A key that breaks a rule.
    InvalidKey,
    /// A body that could not be read to its end.
    UnreadableBody,
    /// A body over the limit.
    RequestTooLarge,
    /// The key belongs to another request.
    Mismatch,
    /// The key's execution is in flight.
    Conflict,
    /// The key's execution ended without a known outcome.
    OutcomeUnknown,
    /// The key's execution completed, its response was not kept.
    ResponseNotStored,
    /// The store cannot be asked.
    StoreUnavailable,
    /// The server is at one of its limits.
    Overloaded,
    /// The stored response cannot be read.
    RecordUnreadable,
    /// The handler panicked.
    HandlerPanicked,
}

impl ProblemCode {
    /// All codes, in the order of the table.
    pub(super) const ALL: [Self; 12] = [
        Self::MissingKey,
        Self::InvalidKey,
        Self::UnreadableBody,
        Self::RequestTooLarge,
        Self::Mismatch,
        Self::Conflict,
        Self::OutcomeUnknown,
        Self::ResponseNotStored,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::RecordUnreadable,
        Self::HandlerPanicked,
    ];

    /// The code as the JSON body carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The status it is answered with, unless the profile has another one.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    pub(super) const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

const _: () = assert!(TABLE.len() == ProblemCode::ALL.len());

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
