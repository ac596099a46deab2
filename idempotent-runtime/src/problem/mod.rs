//! The answers that the engine gives itself, as problem details (RFC 9457).
//!
//! ```text
//! code     the codes, their documentation and order
//! table    from each code to its status, title, action, Retry-After and detail
//! stripe   what Stripe's SDKs read beside that
//! mod      the response that is made of them
//! ```
//!
//! Nothing else in the crate chooses a status for an error: a new answer is a code and a row of the table. All but
//! `handler_panicked` and `transaction_failed` concern one request only and are never stored.

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::Serialize;

use crate::key::KeyError;

mod code;
mod stripe;
mod table;
#[cfg(test)]
mod tests;

pub use code::ProblemCode;
#[cfg(feature = "openapi")]
pub(crate) use table::ACTIONS;
use table::Action;

/// What `type` begins with unless it is configured: a path of the service itself, since no domain is ours to name.
/// RFC 9457, section 3.1.1, allows relative references and asks that they include the full path.
const DEFAULT_TYPE_BASE: &str = "/problems/idempotency/";

/// How `caller_unknown` asks for credentials unless it is configured. A 401 has to have a challenge (RFC 9110, section
/// 15.5.2), and which scheme the application takes is not known here. To name one that it may not take, such as `Bearer`,
/// would mislead clients that obey; a scheme that they do not know, they ignore.
pub(crate) const DEFAULT_CHALLENGE: &str = "Idempotency-Caller";

/// The settings that all problems of an engine have in common.
#[derive(Clone, Debug)]
pub(crate) struct ProblemStyle {
    /// What `type` begins with; the code follows.
    pub(crate) type_base: Cow<'static, str>,
    /// The status of `mismatch` and `caller_mismatch`: 409, or what the profile says.
    pub(crate) mismatch_status: StatusCode,
    /// Whether problems and replays also say what Stripe's SDKs read.
    pub(crate) for_stripe: bool,
    /// The challenge of `caller_unknown`.
    pub(crate) challenge: HeaderValue,
}

impl Default for ProblemStyle {
    fn default() -> Self {
        Self {
            type_base: Cow::Borrowed(DEFAULT_TYPE_BASE),
            mismatch_status: ProblemCode::Mismatch.status(),
            for_stripe: false,
            challenge: HeaderValue::from_static(DEFAULT_CHALLENGE),
        }
    }
}

impl ProblemStyle {
    /// Whether an application chose something about the problems that an extractor makes without it.
    pub(crate) fn is_own(&self) -> bool {
        self.type_base != DEFAULT_TYPE_BASE || self.for_stripe
    }

    /// Adds to the headers of a replay what it has to say about repetitions.
    pub(crate) fn mark_replay(&self, status: StatusCode, headers: &mut HeaderMap) {
        if self.for_stripe
            && let Some((name, value)) = stripe::final_replay(status)
        {
            headers.insert(name, value);
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
    /// Whether the request that gets it was refused before anything was executed for it.
    before_the_handler: bool,
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
            before_the_handler: code.comes_before_the_handler(),
        }
    }

    /// The key in the request header of this name is missing or not valid.
    pub(crate) fn key(error: KeyError, header: &str) -> Self {
        Self::new(key_code(error)).detail(format!("header {header}: {error}"))
    }

    /// The key that the route's function finds in the request is missing or not valid.
    pub(crate) fn key_of_the_request(error: KeyError) -> Self {
        Self::new(key_code(error)).detail(error.to_string())
    }

    /// A body of more than `limit` bytes. A limit that somebody else set and we do not know has the detail of the table,
    /// which names no number.
    pub(crate) fn request_too_large(limit: usize) -> Self {
        Self::new(ProblemCode::RequestTooLarge).detail(format!(
            "the request body is larger than the {limit} bytes that this operation accepts, and \
             this request was not executed: send a smaller one"
        ))
    }

    /// The key was used with other credentials, and those of this scheme are other ones in each request.
    pub(crate) fn signed_anew(scheme: &str) -> Self {
        Self::new(ProblemCode::CallerMismatch).detail(format!(
            "this idempotency key was used with other credentials, and the scheme {scheme} makes new ones for each request: \
             as long as the service knows its callers by nothing else, no retry can be answered. If this was meant as a \
             retry, check first whether the operation took effect"
        ))
    }

    /// A panic on a route that executes again after a crash (`on_crash = "retry"`): this answer is not stored, and
    /// a retry executes again.
    pub(crate) fn panicked_and_retried() -> Self {
        Self {
            action: Action::RetrySameKey,
            ..Self::new(ProblemCode::HandlerPanicked).detail(
                "the operation failed unexpectedly: send the request again with the same key to \
                 have it executed again",
            )
        }
    }

    /// A panic whose transaction was rolled back.
    pub(crate) fn panicked_and_rolled_back() -> Self {
        Self::new(ProblemCode::HandlerPanicked).detail(
            "the operation failed unexpectedly and was rolled back; this answer is final for this idempotency key",
        )
    }

    /// A panic before the handler began, in an extractor, the body or what finds out who calls: nothing was executed,
    /// and the key is free.
    pub(crate) fn panicked_before_the_handler() -> Self {
        Self {
            action: Action::RetrySameKey,
            before_the_handler: true,
            ..Self::new(ProblemCode::HandlerPanicked).detail(
                "the request could not be read because of an unexpected failure, and was not executed: send it again \
                 with the same key",
            )
        }
    }

    /// Says more precisely what happened. The detail must not contain text from the request.
    #[must_use]
    pub(crate) fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Seconds until a retry makes sense, at least 1. Ignored if the table has no `Retry-After` for the code.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = self.retry_after.map(|_| seconds.max(1));
        self
    }

    /// Whether nothing was executed for the request that gets it.
    pub(crate) fn comes_before_the_handler(&self) -> bool {
        self.before_the_handler
    }

    /// The code of the problem.
    pub(crate) fn code(&self) -> ProblemCode {
        self.code
    }

    /// The response. That to a panic is stored like a handler's own: from its parts and body.
    pub(crate) fn response(&self, style: &ProblemStyle) -> Response<Bytes> {
        let row = self.code.row();
        let status = match self.code {
            ProblemCode::Mismatch | ProblemCode::CallerMismatch => style.mismatch_status,
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
            error: style
                .for_stripe
                .then(|| stripe::Error::new(self.code, &self.detail)),
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
        if self.code == ProblemCode::CallerUnknown {
            headers.insert(WWW_AUTHENTICATE, style.challenge.clone());
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if style.for_stripe {
            let (name, value) = stripe::should_retry(self.code, self.action);
            headers.insert(name, value);
        }
        response
    }
}

fn key_code(error: KeyError) -> ProblemCode {
    match error {
        KeyError::Missing => ProblemCode::MissingKey,
        _ => ProblemCode::InvalidKey,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<stripe::Error>,
}
