//! The codes of the engine's own answers, and their documentation for clients.

use std::fmt;

use http::StatusCode;

use super::table::{Row, TABLE};

/// Which of its own answers the engine gave. Each such response has it in its extensions.
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
/// | `retry_same_key` | send the same request with the same key again, after the time in `Retry-After`, if any |
/// | `fix_request` | correct the request as the detail says, and keep the key if it is valid |
/// | `none` | nothing: the operation was, or may have been, executed, and this answer is final |
///
/// No answer asks for a new key: behind each of them an earlier request may have had its effect, and a program that
/// took a new key would cause a second one. Whether an operation is a new one is for the user of the client to decide.
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
/// Status 409; 422 in the IETF profile, 400 in that of Stripe. The key was used for a request that asks for something
/// else. A retry has to be sent as the first request was.
///
/// ## `caller_mismatch`
///
/// The status of `mismatch`. The key was used with other credentials, on a route that knows its callers by nothing else:
/// by another caller, or by the same one before its token was renewed. With a [scope](crate::scope) it cannot happen. Where
/// each request has a signature of its own (`AWS4-HMAC-SHA256`, `Digest`, OAuth 1, `Hawk`), it happens to every retry
/// without one; the detail then names the scheme.
///
/// ## `caller_unknown`
///
/// Status 401. The route requires a caller ([`Policy::require_caller`](crate::Policy::require_caller)), and nothing in
/// the request says who that is. This request was not executed, and its body was not read. `WWW-Authenticate` has the
/// challenge that the service chose ([`Builder::challenge`](crate::Builder::challenge)).
///
/// ## `conflict`
///
/// Status 409 with `Retry-After`. The request with this key is still being executed.
///
/// ## `outcome_unknown`
///
/// Status 409 with `Retry-After`. An execution began, and how it ended is not known. The same request with the same key
/// is safe to repeat until the key expires: it executes again only if it turns out that nothing was executed, and gets
/// the outcome once that is known. A new key would be a new operation.
///
/// ## `response_not_stored`
///
/// Status 409. The operation was executed, but its response could not be kept: it was too large or endless, or the
/// store did not take it.
///
/// ## `store_unavailable`
///
/// Status 503 with `Retry-After`. This request was not executed, because keys could not be checked. An earlier one
/// with the same key may have been executed: a retry with the same key gets its outcome.
///
/// ## `overloaded`
///
/// Status 503 with `Retry-After`. This request was not executed, because a limit of the server is reached. An
/// earlier one with the same key may have been executed, or be in flight: a retry with the same key gets its outcome.
///
/// ## `record_unreadable`
///
/// Status 500. The record under the key cannot be read. The operation may have been executed, and is never
/// executed again with this key.
///
/// ## `handler_panicked`
///
/// Status 500. The handler panicked. This answer is stored and replayed, unless the route executes again after a
/// crash.
///
/// ## `transaction_failed`
///
/// Status 500. The handler's database transaction could not be committed together with the record
/// ([`transaction`](macro@crate::idempotent#transaction)): the detail says why, and whether anything may have been committed.
/// This answer is stored and replayed.
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
    /// The key belongs to a caller with other credentials.
    CallerMismatch,
    /// No caller where one is required.
    CallerUnknown,
    /// An execution with this key is in flight.
    Conflict,
    /// An execution with this key began, and its outcome is not known.
    OutcomeUnknown,
    /// An execution with this key completed, but its response was not kept.
    ResponseNotStored,
    /// The store cannot be reached.
    StoreUnavailable,
    /// A limit of the server is reached.
    Overloaded,
    /// The stored response cannot be read.
    RecordUnreadable,
    /// The handler panicked.
    HandlerPanicked,
    /// The handler's transaction could not be committed with the record.
    TransactionFailed,
}

impl ProblemCode {
    /// All codes, in the order of the table.
    pub(crate) const ALL: [Self; 15] = [
        Self::MissingKey,
        Self::InvalidKey,
        Self::UnreadableBody,
        Self::RequestTooLarge,
        Self::Mismatch,
        Self::CallerMismatch,
        Self::CallerUnknown,
        Self::Conflict,
        Self::OutcomeUnknown,
        Self::ResponseNotStored,
        Self::StoreUnavailable,
        Self::Overloaded,
        Self::RecordUnreadable,
        Self::HandlerPanicked,
        Self::TransactionFailed,
    ];

    /// The code as the JSON body carries it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The code that the JSON body of a problem carries, if it is one.
    pub(crate) fn named(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == code)
    }

    /// The status of the answer, unless the profile has another one.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// Whether nothing is executed for a request that gets it. The others are about an execution, of this request or of an
    /// earlier one.
    pub(super) const fn comes_before_the_handler(self) -> bool {
        match self {
            Self::MissingKey
            | Self::InvalidKey
            | Self::UnreadableBody
            | Self::RequestTooLarge
            | Self::Mismatch
            | Self::CallerMismatch
            | Self::CallerUnknown
            | Self::Conflict
            | Self::StoreUnavailable
            | Self::Overloaded => true,
            Self::OutcomeUnknown
            | Self::ResponseNotStored
            | Self::RecordUnreadable
            | Self::HandlerPanicked
            | Self::TransactionFailed => false,
        }
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
