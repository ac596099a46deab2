use std::collections::HashSet;

use serde_json::Value;

use super::*;

fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

// What each code is answered with is asked over HTTP, in `tests/scenarios/answers.rs`.
#[test]
fn the_table_has_one_row_for_each_code_in_the_order_of_the_variants() {
    let texts: HashSet<_> = ProblemCode::ALL.map(ProblemCode::as_str).into();
    assert_eq!(texts.len(), ProblemCode::ALL.len());
    for (at, code) in ProblemCode::ALL.into_iter().enumerate() {
        assert_eq!(code as usize, at);
        assert_eq!(code.to_string(), code.as_str());
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
