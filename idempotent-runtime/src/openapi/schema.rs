//! The schema of the engine's problems.

use serde_json::{Value, json};

use super::{DocumentError, object};
use crate::problem::{ACTIONS, ProblemCode};

/// Its name among the document's components.
pub(super) const NAME: &str = "IdempotencyProblem";

/// Where responses refer to it.
pub(super) fn reference() -> Value {
    json!({ "$ref": format!("#/components/schemas/{NAME}") })
}

/// Adds it to the components.
pub(super) fn define(document: &mut Value) -> Result<(), DocumentError> {
    let members = object(document, "")?;
    let components = members.entry("components").or_insert_with(|| json!({}));
    let components = object(components, "/components")?;
    let schemas = components.entry("schemas").or_insert_with(|| json!({}));
    let schemas = object(schemas, "/components/schemas")?;
    let defined = schemas.entry(NAME).or_insert_with(schema);
    if *defined == schema() {
        Ok(())
    } else {
        Err(DocumentError::SchemaTaken { name: NAME })
    }
}

/// Valid in OpenAPI 3.0, 3.1 and 3.2.
fn schema() -> Value {
    let codes: Vec<&str> = ProblemCode::ALL.map(ProblemCode::as_str).to_vec();
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457) of the idempotency layer.",
        "required": ["type", "title", "status", "detail", "code", "retryable", "action"],
        "properties": {
            "type": { "type": "string", "format": "uri-reference" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "code": { "type": "string", "enum": codes },
            "retryable": {
                "type": "boolean",
                "description": "Whether the same request may be sent again with the same key.",
            },
            "action": {
                "type": "string",
                "enum": ACTIONS,
                "description": "What a client does about it. None of these is a new key.",
            },
            "error": {
                "type": "object",
                "description": "What the SDKs of Stripe read, where the service answers as that API does.",
                "required": ["type", "message"],
                "properties": {
                    "type": { "type": "string" },
                    "code": { "type": "string" },
                    "message": { "type": "string" },
                },
            },
        },
    })
}
