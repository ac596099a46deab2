use serde_json::Value;

use super::*;

/// Code, status, action and `Retry-After`, as the contract has them (section 7).
#[rustfmt::skip]
const CONTRACT: [(ProblemCode, &str, u16, &str, Option<&str>); 14] = [
    (ProblemCode::MissingKey, "missing_key", 400, "fix_request", None),
    (ProblemCode::InvalidKey, "invalid_key", 400, "fix_request", None),
    (ProblemCode::UnreadableBody, "unreadable_body", 400, "retry_same_key", None),
    (ProblemCode::RequestTooLarge, "request_too_large", 413, "fix_request", None),
    (ProblemCode::Mismatch, "mismatch", 409, "fix_request", None),
    (ProblemCode::CallerMismatch, "caller_mismatch", 409, "fix_request", None),
    (ProblemCode::CallerUnknown, "caller_unknown", 401, "fix_request", None),
    (ProblemCode::Conflict, "conflict", 409, "retry_same_key", Some("1")),
    (ProblemCode::OutcomeUnknown, "outcome_unknown", 409, "retry_same_key", Some("60")),
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
        assert_eq!(body["type"], format!("/problems/idempotency/{text}"));
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
fn the_members_of_the_body_are_those_of_the_contract_in_order() {
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
fn retry_after_is_at_least_a_second_and_only_where_the_table_has_it() {
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
    for code in [ProblemCode::Mismatch, ProblemCode::CallerMismatch] {
        let response = Problem::new(code).response(&style);
        assert_eq!(
            (response.status().as_u16(), &json(&response)["status"]),
            (422, &422.into())
        );
    }
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
fn the_detail_names_the_limit() {
    let problem = Problem::request_too_large(1_048_576);
    assert!(
        problem.detail.contains("1048576 bytes"),
        "{}",
        problem.detail
    );
}
