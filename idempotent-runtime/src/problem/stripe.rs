//! What Stripe's own SDKs read of a problem.
//!
//! Each of them reads a member `error` of the body and nothing else of it: one takes a body without that member for a
//! success, another for a failure of the transport. Whether they send the request again is said by a header, and without
//! it they decide by the status: they repeat 409 and 5xx.

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::{ProblemCode, table::Action};

/// The response header that tells these SDKs whether to repeat a request.
static SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");

/// How the message of Stripe's own error for a reused key begins.
const REUSED: &str = "Keys for idempotent requests can only be used with the same parameters they were first used with: ";

/// The member `error`. The SDKs choose the class of their exception by `type` and the status.
#[derive(Serialize)]
pub(super) struct Error {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    message: String,
}

impl Error {
    pub(super) fn new(code: ProblemCode, detail: &str) -> Self {
        let reused = matches!(code, ProblemCode::Mismatch | ProblemCode::CallerMismatch);
        let (r#type, error_code) = kind(code);
        Self {
            r#type,
            code: error_code,
            message: format!("{}{detail}", if reused { REUSED } else { "" }),
        }
    }
}

/// The `type` of the error, and its `code` where there is one.
const fn kind(code: ProblemCode) -> (&'static str, Option<&'static str>) {
    match code {
        ProblemCode::Mismatch | ProblemCode::CallerMismatch => ("idempotency_error", None),
        ProblemCode::Conflict => ("idempotency_error", Some("idempotency_key_in_use")),
        ProblemCode::OutcomeUnknown | ProblemCode::ResponseNotStored => {
            ("api_error", Some(code.as_str()))
        }
        ProblemCode::StoreUnavailable
        | ProblemCode::Overloaded
        | ProblemCode::RecordUnreadable
        | ProblemCode::HandlerPanicked
        | ProblemCode::TransactionFailed => ("api_error", None),
        ProblemCode::MissingKey
        | ProblemCode::InvalidKey
        | ProblemCode::UnreadableBody
        | ProblemCode::RequestTooLarge
        | ProblemCode::CallerUnknown => ("invalid_request_error", None),
    }
}

/// The header for a problem: true where the same request with the same key gets another answer soon. The SDKs give up
/// after seconds, so for an unknown outcome it is false.
pub(super) fn should_retry(code: ProblemCode, action: Action) -> (HeaderName, HeaderValue) {
    let retry = action == Action::RetrySameKey && code != ProblemCode::OutcomeUnknown;
    let value = if retry { "true" } else { "false" };
    (SHOULD_RETRY.clone(), HeaderValue::from_static(value))
}

/// The header for a replay, where the SDKs would repeat the request for its status: each repetition gets the same.
pub(super) fn final_replay(status: StatusCode) -> Option<(HeaderName, HeaderValue)> {
    let repeated = status == StatusCode::CONFLICT || status.is_server_error();
    repeated.then(|| (SHOULD_RETRY.clone(), HeaderValue::from_static("false")))
}
