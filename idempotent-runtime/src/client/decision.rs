//! What an answer means for a client that sent a key.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use serde_json::Value;

/// What a client does after an answer. Never a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// This is the answer: an outcome, or a refusal that the same request gets again.
    Final,
    /// The same request with the same key gets another answer later.
    RetrySameKey {
        /// After this time, where the server says one.
        after: Option<Duration>,
    },
}

/// Says what an answer to a request with a key means.
///
/// The first of these that says something decides:
///
/// 1. The header of a replay (`Idempotent-Replay` or `Idempotent-Replayed`): the stored outcome is final.
/// 2. `Stripe-Should-Retry`.
/// 3. The members `action` and `retryable` of the body, as this library writes them.
/// 4. The member `error` of the body, as Stripe writes it: a key in use (`idempotency_key_in_use`, `lock_timeout`) is
///    retried, another `idempotency_error` is final.
/// 5. The status: 408, 425, 429, 502, 503 and 504 are retried, and 409, which the IETF draft has for a request that is
///    still in progress. Everything else is final.
///
/// `Retry-After` counts in seconds only; a date is as if it were absent.
#[must_use]
pub fn decide(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let is = |name: &str, expected: &str| {
        let value = headers.get(name).map(http::HeaderValue::as_bytes);
        value.is_some_and(|value| value.eq_ignore_ascii_case(expected.as_bytes()))
    };
    let retried = |retried: bool| {
        if retried {
            Verdict::RetrySameKey {
                after: retry_after(headers),
            }
        } else {
            Verdict::Final
        }
    };
    if is("idempotent-replay", "true") || is("idempotent-replayed", "true") {
        return Verdict::Final;
    }
    if is("stripe-should-retry", "true") || is("stripe-should-retry", "false") {
        return retried(is("stripe-should-retry", "true"));
    }
    if status.is_client_error() || status.is_server_error() {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(says) = of_problem(&body).or_else(|| of_stripe(&body)) {
            return retried(says);
        }
    }
    retried(matches!(
        status.as_u16(),
        408 | 409 | 425 | 429 | 502 | 503 | 504
    ))
}

/// Whether problem details say that a retry makes sense.
fn of_problem(body: &Value) -> Option<bool> {
    match body.get("action").and_then(Value::as_str) {
        Some("retry_same_key") => Some(true),
        Some("fix_request" | "none" | "new_key") => Some(false),
        _ => body.get("retryable").and_then(Value::as_bool),
    }
}

/// Whether an error of Stripe's form says so.
fn of_stripe(body: &Value) -> Option<bool> {
    let member = |name| body.pointer(name).and_then(Value::as_str);
    match (member("/error/type"), member("/error/code")) {
        (_, Some("idempotency_key_in_use" | "lock_timeout")) => Some(true),
        (Some("idempotency_error" | "invalid_request_error" | "card_error"), _) => Some(false),
        _ => None,
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Verdict = Verdict::RetrySameKey { after: None };

    #[test]
    fn the_first_sign_decides() {
        let key_in_use =
            r#"{"error":{"type":"idempotency_error","code":"idempotency_key_in_use"}}"#;
        let reused = r#"{"error":{"type":"idempotency_error"}}"#;
        let fix = r#"{"code":"mismatch","action":"fix_request","retryable":false}"#;
        let again = r#"{"code":"conflict","action":"retry_same_key","retryable":true}"#;
        for (status, header, body, expected) in [
            (201, None, "", Verdict::Final),
            // A body of the application's says nothing where it succeeded.
            (201, None, again, Verdict::Final),
            (409, None, fix, Verdict::Final),
            (409, None, again, LATER),
            (500, None, r#"{"action":"retry_same_key"}"#, LATER),
            (503, None, r#"{"action":"none"}"#, Verdict::Final),
            (503, None, r#"{"retryable":false}"#, Verdict::Final),
            (400, None, reused, Verdict::Final),
            (409, None, reused, Verdict::Final),
            (409, None, key_in_use, LATER),
            (
                429,
                None,
                r#"{"error":{"type":"invalid_request_error","code":"lock_timeout"}}"#,
                LATER,
            ),
            (
                409,
                Some(("stripe-should-retry", "false")),
                key_in_use,
                Verdict::Final,
            ),
            (400, Some(("stripe-should-retry", "true")), reused, LATER),
            (
                503,
                Some(("idempotent-replay", "true")),
                again,
                Verdict::Final,
            ),
            (
                409,
                Some(("idempotent-replayed", "true")),
                "",
                Verdict::Final,
            ),
            (409, None, "", LATER),
            (422, None, "", Verdict::Final),
            (400, None, "not JSON", Verdict::Final),
            (429, None, "", LATER),
            (500, None, "", Verdict::Final),
            (502, None, "<html>", LATER),
            (504, None, "", LATER),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            let verdict = decide(status, &headers, body.as_bytes());
            assert_eq!(verdict, expected, "{status} {header:?} {body}");
        }
    }

    #[test]
    fn the_server_says_when() {
        for (value, seconds) in [("7", Some(7)), ("Wed, 21 Oct 2026 07:28:00 GMT", None)] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
            let after = seconds.map(Duration::from_secs);
            let verdict = decide(StatusCode::CONFLICT, &headers, b"");
            assert_eq!(verdict, Verdict::RetrySameKey { after });
        }
    }
}
