//! The table from each code to its status and text.

use http::StatusCode;
use serde::Serialize;

/// What a client can do about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    RetrySameKey,
    FixRequest,
    None,
}

/// The actions by their names in the JSON body.
#[cfg(feature = "openapi")]
pub(crate) const ACTIONS: [&str; 3] = ["retry_same_key", "fix_request", "none"];

/// One row of the table.
pub(super) struct Row {
    pub(super) code: &'static str,
    pub(super) status: StatusCode,
    pub(super) title: &'static str,
    pub(super) action: Action,
    /// Seconds for `Retry-After` if nothing better is known; `None` for an answer without this header.
    pub(super) retry_after: Option<u64>,
    pub(super) detail: &'static str,
}

/// The table, in the order of the variants.
pub(super) static TABLE: [Row; 15] = [
    Row {
        code: "missing_key",
        status: StatusCode::BAD_REQUEST,
        title: "Idempotency key missing",
        action: Action::FixRequest,
        retry_after: None,
        detail: "this operation requires an idempotency key: send one that is unique to the \
                 operation, and the same one with every retry",
    },
    Row {
        code: "invalid_key",
        status: StatusCode::BAD_REQUEST,
        title: "Idempotency key invalid",
        action: Action::FixRequest,
        retry_after: None,
        detail: "the idempotency key breaks a rule: send 1 to 255 visible characters, such as a \
                 random UUID",
    },
    Row {
        code: "unreadable_body",
        status: StatusCode::BAD_REQUEST,
        title: "Request body unreadable",
        action: Action::RetrySameKey,
        retry_after: None,
        detail: "the request body ended early or could not be read, and this request was not executed: send \
                 it again, with the same key",
    },
    Row {
        code: "request_too_large",
        status: StatusCode::PAYLOAD_TOO_LARGE,
        title: "Request body too large",
        action: Action::FixRequest,
        retry_after: None,
        detail: "the request body is larger than this operation accepts, and this request was not \
                 executed: send a smaller one",
    },
    Row {
        code: "mismatch",
        status: StatusCode::CONFLICT,
        title: "Idempotency key used for another request",
        action: Action::FixRequest,
        retry_after: None,
        detail: "this idempotency key was used for a request that differs in its path, query, headers or body: \
                 send a retry unchanged. Only a new operation gets a new key; if this was meant as a retry, \
                 check first whether the operation took effect",
    },
    Row {
        code: "caller_mismatch",
        status: StatusCode::CONFLICT,
        title: "Idempotency key used by another caller",
        action: Action::FixRequest,
        retry_after: None,
        detail: "this idempotency key was used with other credentials: send a retry with those of the first \
                 request. Only a new operation gets a new key; if this was meant as a retry, with credentials \
                 that were renewed since, check first whether the operation took effect",
    },
    Row {
        code: "caller_unknown",
        status: StatusCode::UNAUTHORIZED,
        title: "Caller unknown",
        action: Action::FixRequest,
        retry_after: None,
        detail: "nothing in the request says whose idempotency key this is, and this request was not executed: \
                 send it with credentials, and with the same key",
    },
    Row {
        code: "conflict",
        status: StatusCode::CONFLICT,
        title: "Request still in progress",
        action: Action::RetrySameKey,
        retry_after: Some(1),
        detail: "a request with this idempotency key is still being executed: send it again with \
                 the same key after the time in Retry-After",
    },
    Row {
        code: "outcome_unknown",
        status: StatusCode::CONFLICT,
        title: "Outcome unknown",
        action: Action::RetrySameKey,
        // Nothing but an operator, or a completion that is minutes late, changes this answer.
        retry_after: Some(60),
        detail: "a request with this idempotency key was started and its outcome is not known: it \
                 may have taken effect. Repeating it with the same key is safe; before using a new \
                 key, check whether it took effect",
    },
    Row {
        code: "response_not_stored",
        status: StatusCode::CONFLICT,
        title: "Response not stored",
        action: Action::None,
        retry_after: None,
        detail: "the request with this idempotency key was executed, but its response could not be \
                 kept for a replay: read the result where the operation left it",
    },
    Row {
        code: "store_unavailable",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "Idempotency store unavailable",
        action: Action::RetrySameKey,
        retry_after: Some(1),
        detail: "idempotency keys cannot be checked at the moment, and this request was not executed; an \
                 earlier one with the same key may have been: send it again with the same key after the \
                 time in Retry-After",
    },
    Row {
        code: "overloaded",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "Too many requests in progress",
        action: Action::RetrySameKey,
        retry_after: Some(1),
        detail: "the server is at its limit, and this request was not executed; an earlier one with the same \
                 key may have been: send it again with the same key after the time in Retry-After",
    },
    Row {
        code: "record_unreadable",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "Stored response unreadable",
        action: Action::None,
        retry_after: None,
        detail: "the request with this idempotency key may have been executed, but its record cannot be \
                 read: before using a new key, check whether it took effect, and report this to the \
                 operator of the service",
    },
    Row {
        code: "handler_panicked",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "Operation failed unexpectedly",
        action: Action::None,
        retry_after: None,
        detail: "the operation failed unexpectedly and may have taken effect in part; this answer \
                 is final for this idempotency key: before using a new key, check what took effect",
    },
    Row {
        code: "transaction_failed",
        status: StatusCode::INTERNAL_SERVER_ERROR,
        title: "Operation not committed",
        action: Action::None,
        retry_after: None,
        detail: "the operation failed and was rolled back; this answer is final for this idempotency key",
    },
];
