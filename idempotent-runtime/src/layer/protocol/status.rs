//! Statuses of gRPC: of the engine's own answers, and of handlers as policies see them.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;

use crate::{
    body::Body,
    engine::{Reply, ResponseBody},
    problem::ProblemCode,
};

pub(super) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

const UNIMPLEMENTED: &str = "12";

/// Whether this is the head of an answer that says "no such method", and nothing else.
pub(super) fn is_unimplemented(headers: &HeaderMap) -> bool {
    let status = headers.get(STATUS);
    status.is_some_and(|status| status == UNIMPLEMENTED)
}

/// The status in this head, as trailers.
pub(super) fn taken_from(headers: &mut HeaderMap) -> HeaderMap {
    let taken = [STATUS, MESSAGE, DETAILS].map(|name| Some((headers.remove(&name)?, name)));
    let taken = taken.into_iter().flatten();
    taken.map(|(value, name)| (name, value)).collect()
}

/// The status of HTTP for the status in these trailers, as `google/rpc/code.proto` maps them: policies are written in
/// statuses of HTTP.
pub(super) fn of_http(trailers: &HeaderMap) -> StatusCode {
    let status = trailers.get(STATUS).and_then(|value| value.to_str().ok());
    let status = status.and_then(|status| status.parse().ok());
    match status.unwrap_or(2) {
        0 => StatusCode::OK,
        // CANCELLED; HTTP has no status for it, and this one is what servers log.
        1 => StatusCode::from_u16(499).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        // INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE
        3 | 9 | 11 => StatusCode::BAD_REQUEST,
        // DEADLINE_EXCEEDED
        4 => StatusCode::GATEWAY_TIMEOUT,
        // NOT_FOUND
        5 => StatusCode::NOT_FOUND,
        // ALREADY_EXISTS, ABORTED
        6 | 10 => StatusCode::CONFLICT,
        // PERMISSION_DENIED
        7 => StatusCode::FORBIDDEN,
        // RESOURCE_EXHAUSTED
        8 => StatusCode::TOO_MANY_REQUESTS,
        // UNIMPLEMENTED
        12 => StatusCode::NOT_IMPLEMENTED,
        // UNAVAILABLE
        14 => StatusCode::SERVICE_UNAVAILABLE,
        // UNAUTHENTICATED
        16 => StatusCode::UNAUTHORIZED,
        // UNKNOWN, INTERNAL, DATA_LOSS, and what there is not
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The status of gRPC for an answer of the engine.
fn of_problem(code: ProblemCode) -> u8 {
    match code {
        // INVALID_ARGUMENT
        ProblemCode::MissingKey | ProblemCode::InvalidKey => 3,
        // ALREADY_EXISTS
        ProblemCode::ResponseNotStored => 6,
        // FAILED_PRECONDITION
        ProblemCode::Mismatch | ProblemCode::CallerMismatch => 9,
        // ABORTED
        ProblemCode::Conflict | ProblemCode::OutcomeUnknown => 10,
        // OUT_OF_RANGE
        ProblemCode::RequestTooLarge => 11,
        // INTERNAL
        ProblemCode::HandlerPanicked | ProblemCode::TransactionFailed => 13,
        // UNAVAILABLE
        ProblemCode::StoreUnavailable | ProblemCode::Overloaded | ProblemCode::UnreadableBody => 14,
        // DATA_LOSS
        ProblemCode::RecordUnreadable => 15,
        // UNAUTHENTICATED
        ProblemCode::CallerUnknown => 16,
    }
}

/// What is read of the engine's own answers, also of those that were stored.
#[derive(Deserialize)]
pub(super) struct Problem {
    r#type: String,
    detail: String,
    code: String,
    action: String,
}

/// An answer of the engine as a status in the head.
pub(super) fn answered(reply: Reply<Body>, code: ProblemCode, problem: &Problem) -> Response<Body> {
    let (mut head, _) = reply.into_parts();
    let retry_after = head.headers.remove(RETRY_AFTER);
    let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    for name in [CACHE_CONTROL, CONTENT_LENGTH, WWW_AUTHENTICATE] {
        head.headers.remove(name);
    }
    let message = problem
        .detail
        .replace("the time in Retry-After", "the delay in RetryInfo");
    let details = details(of_problem(code), &message, problem, seconds);
    let details = BASE64_STANDARD_NO_PAD.encode(details);
    for (name, value) in [
        (STATUS, of_problem(code).to_string()),
        (MESSAGE, utf8_percent_encode(&message, &ENCODED).to_string()),
        (DETAILS, details),
    ] {
        // Invariant: what is not printable was encoded.
        let value = HeaderValue::try_from(value).expect("printable characters");
        head.headers.insert(name, value);
    }
    let content_type = HeaderValue::from_static("application/grpc");
    head.headers.insert(CONTENT_TYPE, content_type);
    head.status = StatusCode::OK;
    Response::from_parts(head, Body::empty())
}

/// What `grpc-message` cannot have ("Percent-Encoded" of gRPC over HTTP/2); other than ASCII is encoded anyway.
const ENCODED: AsciiSet = CONTROLS.add(b'%');

/// The engine's own answer, if this is one.
pub(super) fn problem_in(reply: &Reply<Body>) -> Option<(ProblemCode, Problem)> {
    let is_problem = reply
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|value| value == "application/problem+json");
    let ResponseBody::Full(body) = reply.body() else {
        return None;
    };
    let problem: Problem = is_problem.then(|| serde_json::from_slice(body).ok())??;
    let code = ProblemCode::named(&problem.code)?;
    Some((code, problem))
}

/// `google.rpc.Status` in the wire format of Protocol Buffers, with an `ErrorInfo` and, where a retry has to wait, a
/// `RetryInfo` (`google/rpc/error_details.proto`).
fn details(status: u8, message: &str, problem: &Problem, seconds: Option<u32>) -> Vec<u8> {
    let reason = format!("IDEMPOTENCY_{}", problem.code.to_ascii_uppercase());
    let mut info = Message::default();
    info.bytes(1, reason.as_bytes());
    info.bytes(2, DOMAIN.as_bytes());
    for (key, value) in [
        ("action", &problem.action),
        ("code", &problem.code),
        ("type", &problem.r#type),
    ] {
        let mut entry = Message::default();
        entry.bytes(1, key.as_bytes());
        entry.bytes(2, value.as_bytes());
        info.bytes(3, &entry.0);
    }
    let mut all = Message::default();
    all.number(1, u32::from(status));
    all.bytes(2, message.as_bytes());
    all.any("google.rpc.ErrorInfo", &info);
    if let Some(seconds) = seconds {
        let mut duration = Message::default();
        duration.number(1, seconds);
        let mut retry = Message::default();
        retry.bytes(1, &duration.0);
        all.any("google.rpc.RetryInfo", &retry);
    }
    all.0
}

/// Whose the reasons are: of keys of idempotency, whatever the service is.
const DOMAIN: &str = "idempotency-key";

/// A message of Protocol Buffers, field by field.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// A field of a kind of integer.
    fn number(&mut self, field: u8, value: u32) {
        self.0.push(field << 3);
        self.varint(value);
    }

    /// A field of bytes, a string or a message.
    fn bytes(&mut self, field: u8, value: &[u8]) {
        self.0.push(field << 3 | 2);
        self.varint(u32::try_from(value.len()).unwrap_or_default());
        self.0.extend_from_slice(value);
    }

    /// The `details` of a status.
    fn any(&mut self, name: &str, value: &Self) {
        let mut any = Self::default();
        any.bytes(1, format!("type.googleapis.com/{name}").as_bytes());
        any.bytes(2, &value.0);
        self.bytes(3, &any.0);
    }

    /// Seven bits at a time, the lowest first.
    fn varint(&mut self, mut value: u32) {
        loop {
            let [low, ..] = value.to_le_bytes();
            value >>= 7;
            if value == 0 {
                self.0.push(low);
                return;
            }
            self.0.push(low | 0x80);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::{Problem as Answer, ProblemStyle};

    fn trailers(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(STATUS, HeaderValue::from_static(status))])
    }

    #[test]
    fn every_answer_of_the_engine_has_a_status_and_its_text() {
        for code in ProblemCode::ALL {
            let response = Answer::new(code).response(&ProblemStyle::default());
            let reply = response.map(ResponseBody::full);
            let (found, problem) = problem_in(&reply).expect("a problem");
            assert_eq!(found, code);
            let answer = answered(reply, code, &problem);
            assert_eq!(answer.status(), StatusCode::OK);
            let headers = answer.headers();
            assert_eq!(headers[STATUS], of_problem(code).to_string());
            assert_eq!(headers[CONTENT_TYPE], "application/grpc");
            assert!(headers.contains_key(MESSAGE) && headers.contains_key(DETAILS));
            assert_eq!(headers.len(), 4, "{code}: {headers:?}");
            assert_eq!(answer.extensions().get(), Some(&code));
        }
    }

    #[test]
    fn an_error_of_the_application_stays_what_it_is() {
        for body in [
            "{}",
            r#"{"type":"x","detail":"x","code":"other","action":"none"}"#,
        ] {
            let mut reply = Reply::<Body>::new(ResponseBody::full(body.into()));
            let content_type = HeaderValue::from_static("application/problem+json");
            reply.headers_mut().insert(CONTENT_TYPE, content_type);
            assert!(problem_in(&reply).is_none(), "{body}");
        }
    }

    #[test]
    fn statuses_are_those_of_http_as_google_maps_them() {
        let expected = [
            200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401,
        ];
        for (status, expected) in expected.into_iter().enumerate() {
            let status = status.to_string().leak();
            assert_eq!(of_http(&trailers(status)), expected, "{status}");
        }
        for strange in ["17", "-1", "", "ok"] {
            assert_eq!(of_http(&trailers(strange)), 500, "{strange}");
        }
        assert_eq!(of_http(&HeaderMap::new()), 500);
    }

    #[test]
    fn numbers_are_written_in_as_few_bytes_as_they_need() {
        for (value, expected) in [
            (0, &[8, 0][..]),
            (127, &[8, 127]),
            (128, &[8, 0x80, 1]),
            (300, &[8, 0xac, 2]),
        ] {
            let mut message = Message::default();
            message.number(1, value);
            assert_eq!(message.0, expected, "{value}");
        }
    }
}
