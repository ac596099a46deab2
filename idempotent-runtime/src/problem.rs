//! The answers that the engine gives itself, as problem details (RFC 9457).
//!
//! One table decides what each of them says ([`ProblemCode`]); nothing else in the crate picks a status
//! for an error. All but `handler_panicked` are about this request only and are never stored.
//!
//! `action` tells a program what to do, `retryable` is true exactly where it is `retry_same_key`:
//!
//! | action | meaning |
//! |---|---|
//! | `retry_same_key` | send the same request with the same key again, after `Retry-After` if it is there |
//! | `new_key` | the key stands for another request: choose a key for this one |
//! | `fix_request` | the request itself must change |
//! | `none` | nothing to send: the operation was executed |

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use serde::Serialize;

use crate::key::KeyError;

/// Where `type` points unless it is configured: the documentation of [`ProblemCode`], at the heading of the
/// code.
pub(crate) const DEFAULT_TYPE_BASE: &str =
    "https://docs.rs/idempotent-runtime/latest/idempotent_runtime/enum.ProblemCode.html#";

/// Which of its own answers the engine gave. It is in the extensions of each such response.
///
/// The member `code` of the JSON body is [`as_str`](Self::as_str). `type` is the same code behind a base URL,
/// which is this page unless configured otherwise:
///
/// ## `missing_key`
///
/// Status 400. The route requires an idempotency key and the request has none.
///
/// ## `invalid_key`
///
/// Status 400. The key breaks a rule; the detail says which one. Nothing was executed.
///
/// ## `unreadable_body`
///
/// Status 400. The request body ended early or could not be read. Nothing was executed, the key is unused.
///
/// ## `request_too_large`
///
/// Status 413. The request body is larger than the route accepts. Nothing was executed, the key is unused.
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
/// Status 409. The operation was executed, but its response was too large or endless and could not be kept.
///
/// ## `store_unavailable`
///
/// Status 503 with `Retry-After`. Nothing was executed, because keys could not be checked.
///
/// ## `overloaded`
///
/// Status 503 with `Retry-After`. Nothing was executed, because a limit of the server is reached.
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
    /// The handler panicked.
    HandlerPanicked,
}

/// What a client can do about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    RetrySameKey,
    NewKey,
    FixRequest,
    None,
}

/// One line of the table.
struct Row {
    code: &'static str,
    status: StatusCode,
    title: &'static str,
    action: Action,
    /// Seconds for `Retry-After` where nothing better is known; `None` where the header does not belong.
    retry_after: Option<u64>,
    detail: &'static str,
}

impl ProblemCode {
    /// All codes, in the order of the table.
    const ALL: [Self; 11] = [
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

    const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// The table, in the order of the variants.
static TABLE: [Row; ProblemCode::ALL.len()] = [
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
        detail: "the request body ended early or could not be read, and nothing was executed: send \
                 the request again, with the same key",
    },
    Row {
        code: "request_too_large",
        status: StatusCode::PAYLOAD_TOO_LARGE,
        title: "Request body too large",
        action: Action::FixRequest,
        retry_after: None,
        detail: "the request body is larger than this operation accepts, and nothing was executed: \
                 send a smaller one",
    },
    Row {
        code: "mismatch",
        status: StatusCode::CONFLICT,
        title: "Idempotency key used for another request",
        action: Action::NewKey,
        retry_after: None,
        detail: "this idempotency key was used for a request that differs in its caller, path, \
                 query, headers or body: send a retry unchanged, and a new operation with a new key",
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
        retry_after: None,
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
        detail: "idempotency keys cannot be checked at the moment, and nothing was executed: send \
                 the request again with the same key after the time in Retry-After",
    },
    Row {
        code: "overloaded",
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "Too many requests in progress",
        action: Action::RetrySameKey,
        retry_after: Some(1),
        detail: "the server is at its limit, and nothing was executed: send the request again with \
                 the same key after the time in Retry-After",
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
];

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an application chooses about all problems.
#[derive(Clone, Debug)]
pub(crate) struct ProblemStyle {
    /// What stands before the code in `type`.
    pub(crate) type_base: Cow<'static, str>,
    /// The status of `mismatch`: 409, or 422 in the IETF profile.
    pub(crate) mismatch_status: StatusCode,
}

impl Default for ProblemStyle {
    fn default() -> Self {
        Self {
            type_base: Cow::Borrowed(DEFAULT_TYPE_BASE),
            mismatch_status: ProblemCode::Mismatch.status(),
        }
    }
}

/// One answer of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: ProblemCode,
    detail: Cow<'static, str>,
    action: Action,
    retry_after: Option<u64>,
}

impl Problem {
    /// The problem as the table has it.
    pub(crate) fn new(code: ProblemCode) -> Self {
        let row = code.row();
        Self {
            code,
            detail: Cow::Borrowed(row.detail),
            action: row.action,
            retry_after: row.retry_after,
        }
    }

    /// No key, or no valid one, in the request header of this name.
    pub(crate) fn key(error: KeyError, header: &str) -> Self {
        let code = match error {
            KeyError::Missing => ProblemCode::MissingKey,
            _ => ProblemCode::InvalidKey,
        };
        Self::new(code).detail(format!("header {header}: {error}"))
    }

    /// A body of more than `limit` bytes.
    pub(crate) fn request_too_large(limit: usize) -> Self {
        Self::new(ProblemCode::RequestTooLarge).detail(format!(
            "the request body is larger than the {limit} bytes that this operation accepts, and \
             nothing was executed: send a smaller one"
        ))
    }

    /// A panic on a route that executes again after a crash (`on_crash = "retry"`): this answer is not
    /// stored, and a retry is what the route is made for.
    pub(crate) fn panicked_and_retried() -> Self {
        Self {
            action: Action::RetrySameKey,
            ..Self::new(ProblemCode::HandlerPanicked).detail(
                "the operation failed unexpectedly: send the request again with the same key to \
                 have it executed again",
            )
        }
    }

    /// Says more precisely what happened. Never with text from the request.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Seconds until a retry makes sense, at least 1. Ignored where the table has no `Retry-After`.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = self.retry_after.map(|_| seconds.max(1));
        self
    }

    /// Which problem it is.
    pub(crate) fn code(&self) -> ProblemCode {
        self.code
    }

    /// The response. What is to be stored, as the answer to a panic is, is stored from its parts and body.
    pub(crate) fn response(&self, style: &ProblemStyle) -> Response<Bytes> {
        let row = self.code.row();
        let status = match self.code {
            ProblemCode::Mismatch => style.mismatch_status,
            _ => row.status,
        };
        let body = Body {
            r#type: format!("{}{}", style.type_base, row.code),
            title: row.title,
            status: status.as_u16(),
            detail: &self.detail,
            code: row.code,
            retryable: self.action == Action::RetrySameKey,
            action: self.action,
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers have a JSON form");
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        response.extensions_mut().insert(self.code);
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The members of the JSON object, in their order.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    retryable: bool,
    action: Action,
}
