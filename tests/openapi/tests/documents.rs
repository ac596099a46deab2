//! What becomes of documents that say something already (DESIGN.md, section 7).

use http::{HeaderName, Method};
use idempotent_runtime::{Idempotency, Policy, openapi::DocumentError};
use roas::validation::{Options, Validate};
use serde_json::{Value, json};

const PROBLEM: &str = "application/problem+json";

fn engine() -> Idempotency {
    Idempotency::builder().build().unwrap()
}

/// A document with this operation at `POST /orders/{id}/pay`.
fn document(operation: &Value) -> Value {
    let id =
        json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string" } });
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Payments", "version": "1" },
        "paths": { "/orders/{id}/pay": { "parameters": [id], "post": operation } },
        "components": {
            "parameters": { "Key": {
                "name": "Idempotency-Key", "in": "header", "description": "ours", "schema": { "type": "string" },
            } },
            "responses": { "Conflict": { "description": "a conflict of ours" } },
        },
    })
}

fn completed(operation: &Value) -> Value {
    let mut document = document(operation);
    assert_eq!(engine().documentation().complete(&mut document), Ok(1));
    let spec = serde_json::from_value::<roas::v3_1::spec::Spec>(document.clone()).unwrap();
    let options = Options::IgnoreMissingTags
        | Options::IgnoreUnusedParameters
        | Options::IgnoreUnusedResponses;
    let valid = spec.validate(options, None);
    assert!(valid.is_ok(), "{valid:?}\n{document:#}");
    // Once more changes nothing.
    let once = document.clone();
    assert_eq!(engine().documentation().complete(&mut document), Ok(1));
    assert_eq!(document, once);
    document["paths"]["/orders/{id}/pay"]["post"].clone()
}

#[test]
fn what_the_application_wrote_under_a_status_stays_beside_the_answers_of_the_engine() {
    let problem = json!({ "type": "object", "description": "another problem" });
    let pay = completed(&json!({
        "x-idempotent": true,
        "responses": {
            "200": { "description": "paid" },
            "409": { "$ref": "#/components/responses/Conflict" },
            "503": { "description": "asleep", "content": { "text/plain": {}, PROBLEM: { "schema": problem } } },
            "4XX": { "description": "wrong", "content": { "text/html": {} } },
        },
    }));
    let responses = &pay["responses"];
    assert!(responses["200"]["headers"]["idempotent-replay"].is_object());
    assert!(responses["200"].get("content").is_none());
    assert_eq!(responses["409"]["description"], "a conflict of ours");
    let ours = json!({ "$ref": "#/components/schemas/IdempotencyProblem" });
    assert_eq!(responses["409"]["content"][PROBLEM]["schema"], ours);
    assert!(responses["409"]["headers"]["retry-after"].is_object());
    assert_eq!(responses["503"]["description"], "asleep");
    assert!(responses["503"]["content"]["text/plain"].is_object());
    assert_eq!(
        responses["503"]["content"][PROBLEM]["schema"],
        json!({ "anyOf": [problem, ours] })
    );
    // What holds for a range holds for the status that now stands beside it.
    assert_eq!(responses["400"]["description"], "wrong");
    assert!(responses["400"]["content"]["text/html"].is_object());
    assert!(responses["400"]["content"][PROBLEM].is_object());
}

#[test]
fn a_parameter_of_the_application_is_kept_and_becomes_required_where_it_is() {
    for parameters in [
        json!([{ "name": "IDEMPOTENCY-KEY", "in": "header", "description": "ours", "schema": { "type": "string" } }]),
        json!([{ "$ref": "#/components/parameters/Key" }]),
    ] {
        let pay = completed(&json!({
            "x-idempotent": { "required": true },
            "parameters": parameters,
            "responses": { "200": { "description": "paid" } },
        }));
        let parameters = pay["parameters"].as_array().unwrap();
        assert_eq!(parameters.len(), 1, "{parameters:?}");
        assert_eq!(parameters[0]["description"], "ours");
        assert_eq!(parameters[0]["required"], true);
    }
}

#[test]
fn an_operation_is_listed_with_its_policy() {
    let header = HeaderName::from_static("x-request-id");
    let policy = Policy::new().required(true).header_name(header);
    let documentation =
        engine()
            .documentation()
            .operation(Method::POST, "/orders/{order}/pay", policy);
    let mut document = document(&json!({ "responses": { "200": { "description": "paid" } } }));
    assert_eq!(documentation.complete(&mut document), Ok(1));
    let pay = &document["paths"]["/orders/{id}/pay"]["post"];
    assert_eq!(pay["parameters"][0]["name"], "x-request-id");
    assert_eq!(pay["parameters"][0]["required"], true);
    assert!(pay["responses"]["400"]["content"][PROBLEM]["examples"]["missing_key"].is_object());
}

#[test]
fn a_document_of_openapi_3_0_is_valid_too() {
    let mut document = document(&json!({
        "x-idempotent": true, "responses": { "200": { "description": "paid" } },
    }));
    document["openapi"] = "3.0.3".into();
    assert_eq!(engine().documentation().complete(&mut document), Ok(1));
    let spec = serde_json::from_value::<roas::v3_0::spec::Spec>(document.clone()).unwrap();
    let options = Options::IgnoreMissingTags
        | Options::IgnoreUnusedParameters
        | Options::IgnoreUnusedResponses;
    let valid = spec.validate(options, None);
    assert!(valid.is_ok(), "{valid:?}\n{document:#}");
}

#[test]
fn a_document_that_cannot_be_completed_is_unchanged_and_the_error_says_why() {
    let documentation = || engine().documentation();
    let pay = json!({ "x-idempotent": true, "responses": {} });
    let mut swagger = document(&pay);
    swagger["openapi"] = "2.0".into();
    let mut taken = document(&pay);
    taken["components"]["schemas"] = json!({ "IdempotencyProblem": { "type": "string" } });
    let broken = document(&json!({ "x-idempotent": true, "responses": [] }));
    let unknown = document(&json!({ "x-idempotent": { "requird": true } }));
    let elsewhere = documentation().operation(Method::POST, "/pay", Policy::new());
    for (documentation, given, said) in [
        (documentation(), swagger, "OpenAPI 2.0"),
        (documentation(), json!({}), "no member `openapi`"),
        (
            documentation(),
            taken,
            "another schema `IdempotencyProblem`",
        ),
        (
            documentation(),
            broken,
            "`/paths/~1orders~1{id}~1pay/post/responses`",
        ),
        (
            documentation(),
            unknown,
            "`/paths/~1orders~1{id}~1pay/post/x-idempotent`",
        ),
        (elsewhere, document(&pay), "no operation POST /pay"),
    ] {
        let mut document = given.clone();
        let error: DocumentError = documentation.complete(&mut document).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(document, given);
    }
}
