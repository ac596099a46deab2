//! The answers that the engine gives itself, as problem details (RFC 9457).
//!
//! One table decides what each of them says ([`ProblemCode`]); nothing else in the crate picks a status
//! for an error. All but `handler_panicked` are about this request only and are never stored.

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
/// The body is problem details in JSON (RFC 9457). Its member `code` is [`as_str`](Self::as_str), and `type`
/// the same behind a base URL, which is that of this page unless configured otherwise. `action` tells a
/// program what to do; `retryable` is true exactly where that is `retry_same_key`:
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
    const ALL: [Self; 12] = [
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
        action: Action::NewKey,
        retry_after: None,
        detail: "this idempotency key was used for a request that differs in its caller or credentials, path, \
                 query, headers or body: send a retry unchanged. Only a new operation gets a new key; \
                 if this was meant as a retry, check first whether the operation took effect",
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
             this request was not executed: send a smaller one"
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

impl From<ProblemCode> for Problem {
    fn from(code: ProblemCode) -> Self {
        Self::new(code)
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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Code, status, action and `Retry-After`, as the contract has them (section 7).
    #[rustfmt::skip]
    const CONTRACT: [(ProblemCode, &str, u16, &str, Option<&str>); 12] = [
        (ProblemCode::MissingKey, "missing_key", 400, "fix_request", None),
        (ProblemCode::InvalidKey, "invalid_key", 400, "fix_request", None),
        (ProblemCode::UnreadableBody, "unreadable_body", 400, "retry_same_key", None),
        (ProblemCode::RequestTooLarge, "request_too_large", 413, "fix_request", None),
        (ProblemCode::Mismatch, "mismatch", 409, "new_key", None),
        (ProblemCode::Conflict, "conflict", 409, "retry_same_key", Some("1")),
        (ProblemCode::OutcomeUnknown, "outcome_unknown", 409, "retry_same_key", None),
        (ProblemCode::ResponseNotStored, "response_not_stored", 409, "none", None),
        (ProblemCode::StoreUnavailable, "store_unavailable", 503, "retry_same_key", Some("1")),
        (ProblemCode::Overloaded, "overloaded", 503, "retry_same_key", Some("1")),
        (ProblemCode::RecordUnreadable, "record_unreadable", 500, "none", None),
        (ProblemCode::HandlerPanicked, "handler_panicked", 500, "none", None),
    ];

    fn json(response: &Response<Bytes>) -> Value {
        serde_json::from_slice(response.body()).unwrap()
    }

    #[test]
    fn every_problem_is_answered_as_the_contract_says() {
        for (at, (code, text, status, action, retry_after)) in CONTRACT.into_iter().enumerate() {
            assert_eq!(
                ProblemCode::ALL[at],
                code,
                "the table is in the order of the variants"
            );
            assert_eq!((code.as_str(), code.to_string()), (text, text.to_owned()));
            let response = Problem::new(code).response(&ProblemStyle::default());
            assert_eq!(response.status(), status, "{code}");
            let header = |name: &str| {
                response
                    .headers()
                    .get(name)
                    .map(|value| value.to_str().unwrap())
            };
            assert_eq!(header("content-type"), Some("application/problem+json"));
            assert_eq!(header("cache-control"), Some("no-store"));
            assert_eq!(header("retry-after"), retry_after, "{code}");
            assert_eq!(
                response.headers().len(),
                2 + usize::from(retry_after.is_some()),
                "{code}"
            );
            assert_eq!(response.extensions().get(), Some(&code));
            let body = json(&response);
            assert_eq!(body["type"], format!("{DEFAULT_TYPE_BASE}{text}"));
            assert_eq!(
                (&body["status"], &body["code"]),
                (&status.into(), &text.into())
            );
            assert_eq!(
                (&body["action"], &body["retryable"]),
                (&action.into(), &(action == "retry_same_key").into())
            );
            assert!(
                body["title"]
                    .as_str()
                    .is_some_and(|title| !title.is_empty()),
                "{code}"
            );
            assert!(
                body["detail"]
                    .as_str()
                    .is_some_and(|detail| detail.contains(": ")),
                "{code}"
            );
        }
    }

    #[test]
    fn the_members_are_those_of_the_contract_in_its_order() {
        let style = ProblemStyle {
            type_base: "https://example.com/".into(),
            ..ProblemStyle::default()
        };
        let response = Problem::new(ProblemCode::Conflict)
            .detail("d")
            .retry_after(7)
            .response(&style);
        assert_eq!(
            response.body(),
            concat!(
                r#"{"type":"https://example.com/conflict","title":"Request still in progress","#,
                r#""status":409,"detail":"d","code":"conflict","retryable":true,"action":"retry_same_key"}"#,
            ),
        );
        assert_eq!(response.headers()["retry-after"], "7");
    }

    #[test]
    fn retry_after_is_at_least_a_second_and_only_where_it_belongs() {
        let style = ProblemStyle::default();
        let zero = Problem::new(ProblemCode::Conflict)
            .retry_after(0)
            .response(&style);
        assert_eq!(zero.headers()["retry-after"], "1");
        let none = Problem::new(ProblemCode::Mismatch)
            .retry_after(5)
            .response(&style);
        assert!(!none.headers().contains_key("retry-after"));
    }

    #[test]
    fn mismatch_has_the_status_of_the_profile() {
        let style = ProblemStyle {
            mismatch_status: StatusCode::UNPROCESSABLE_ENTITY,
            ..ProblemStyle::default()
        };
        let response = Problem::new(ProblemCode::Mismatch).response(&style);
        assert_eq!(
            (response.status().as_u16(), &json(&response)["status"]),
            (422, &422.into())
        );
        let other = Problem::new(ProblemCode::Conflict).response(&style);
        assert_eq!(other.status(), 409);
    }

    #[test]
    fn key_errors_name_the_header_and_the_remedy() {
        let missing = Problem::key(KeyError::Missing, "Idempotency-Key");
        assert_eq!(missing.code(), ProblemCode::MissingKey);
        let long = Problem::key(KeyError::TooLong { len: 300, max: 255 }, "X-Key");
        assert_eq!(long.code(), ProblemCode::InvalidKey);
        assert_eq!(
            long.detail,
            "header X-Key: the key is 300 bytes long: send at most 255"
        );
    }

    #[test]
    fn a_panic_is_final_unless_the_route_retries() {
        let style = ProblemStyle::default();
        let stored = json(&Problem::new(ProblemCode::HandlerPanicked).response(&style));
        let retried = json(&Problem::panicked_and_retried().response(&style));
        assert_eq!(
            (&stored["retryable"], &stored["action"]),
            (&false.into(), &"none".into())
        );
        assert_eq!(
            (&retried["retryable"], &retried["action"]),
            (&true.into(), &"retry_same_key".into())
        );
        assert_eq!(retried["code"], "handler_panicked");
    }

    #[test]
    fn the_limit_is_named() {
        let problem = Problem::request_too_large(1_048_576);
        assert!(
            problem.detail.contains("1048576 bytes"),
            "{}",
            problem.detail
        );
    }
}
