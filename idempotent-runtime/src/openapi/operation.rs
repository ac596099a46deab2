//! One protected operation of a document.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde_json::{Map, Value, json};

use super::{DocumentError, object, schema};
use crate::{
    engine::{Answering, Idempotency},
    policy::Policy,
    problem::ProblemCode,
};

const PROBLEM: &str = "application/problem+json";

/// An operation, and what the engine does about it.
pub(super) struct Protected {
    answering: Answering,
}

impl Protected {
    /// One that was listed with this policy.
    pub(super) fn listed(engine: &Idempotency, policy: &Policy) -> Self {
        let answering = engine.answering(policy);
        Self { answering }
    }

    /// One that this mark says something about; `None` if nobody can know what.
    pub(super) fn marked(engine: &Idempotency, mark: &Value) -> Option<Self> {
        let mut answering = engine.answering(&Policy::new());
        match mark {
            Value::Bool(true) => {}
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), value) {
                        ("required", Value::Bool(required)) => answering.required = *required,
                        ("header", Value::String(header)) => {
                            answering.header = Some(header.to_ascii_lowercase());
                        }
                        _ => return None,
                    }
                }
            }
            _ => return None,
        }
        Some(Self { answering })
    }

    /// Adds the header of the key and the answers of the engine.
    pub(super) fn complete(
        &self,
        operation: &mut Value,
        shared: Option<&Value>,
        components: &Value,
        pointer: &str,
    ) -> Result<(), DocumentError> {
        let operation = object(operation, pointer)?;
        self.add_parameter(operation, shared, components, pointer)?;
        let pointer = format!("{pointer}/responses");
        let responses = operation.entry("responses").or_insert_with(|| json!({}));
        let responses = object(responses, &pointer)?;
        for (status, response) in responses.iter_mut() {
            let is_own = !status.starts_with("x-");
            if is_own && !is_only_ours(response) {
                let response = resolved(response, components, &format!("{pointer}/{status}"))?;
                self.mark_replays(response, &format!("{pointer}/{status}"))?;
            }
        }
        for code in self.codes() {
            self.add_answer(responses, code, components, &pointer)?;
        }
        Ok(())
    }

    fn add_parameter(
        &self,
        operation: &mut Map<String, Value>,
        shared: Option<&Value>,
        components: &Value,
        pointer: &str,
    ) -> Result<(), DocumentError> {
        let Some(header) = &self.answering.header else {
            return Ok(());
        };
        let is_header = |parameter: &Value| {
            let parameter = target(parameter, components);
            let member = |name| parameter.get(name).and_then(Value::as_str);
            member("in") == Some("header")
                && member("name").is_some_and(|name| name.eq_ignore_ascii_case(header))
        };
        let malformed = |pointer: String| DocumentError::Malformed { pointer };
        let pointer = format!("{pointer}/parameters");
        let own = operation.entry("parameters").or_insert_with(|| json!([]));
        let own = own
            .as_array_mut()
            .ok_or_else(|| malformed(pointer.clone()))?;
        if let Some(at) = own.iter().position(is_header) {
            let pointer = format!("{pointer}/{at}");
            if self.answering.required {
                let parameter = resolved(&mut own[at], components, &pointer)?;
                parameter.insert("required".into(), true.into());
            }
            return Ok(());
        }
        let shared = shared.and_then(Value::as_array);
        let mut parameter = shared
            .and_then(|shared| shared.iter().find(|parameter| is_header(parameter)))
            .map_or_else(
                || {
                    json!({
                        "name": header,
                        "in": "header",
                        "description": "A key that is unique to the operation; every retry has the same one.",
                        "required": false,
                        "schema": { "type": "string", "minLength": 1 },
                    })
                },
                |parameter| target(parameter, components).clone(),
            );
        if self.answering.required {
            parameter["required"] = true.into();
        }
        own.push(parameter);
        Ok(())
    }

    /// The header of a replay, on a response of the application's.
    fn mark_replays(
        &self,
        response: &mut Map<String, Value>,
        pointer: &str,
    ) -> Result<(), DocumentError> {
        let name = self.answering.replay_header.as_str();
        let description =
            "`true` where this is the stored response of an earlier request with the same key.";
        let schema = json!({ "type": "string", "enum": ["true"] });
        add_header(response, name, description, &schema, pointer)
    }

    /// The answers that the engine may give to this operation.
    fn codes(&self) -> impl Iterator<Item = ProblemCode> {
        let Answering {
            required,
            require_caller,
            has_caller,
            ..
        } = self.answering;
        ProblemCode::ALL.into_iter().filter(move |code| match code {
            ProblemCode::MissingKey => required,
            ProblemCode::CallerUnknown => require_caller,
            ProblemCode::CallerMismatch => !has_caller && !require_caller,
            _ => true,
        })
    }

    /// One answer of the engine, beside what the application says about its status.
    fn add_answer(
        &self,
        responses: &mut Map<String, Value>,
        code: ProblemCode,
        components: &Value,
        pointer: &str,
    ) -> Result<(), DocumentError> {
        let answer = self.answering.problem(code);
        let (head, body) = answer.into_parts();
        let status = head.status.as_u16().to_string();
        // A status of its own would hide what the application says about all of its kind.
        let range = responses.get(&format!("{}XX", &status[..1])).cloned();
        let described = || {
            let reason = head.status.canonical_reason().unwrap_or("Refused");
            json!({ "description": reason })
        };
        let response = responses
            .entry(status.clone())
            .or_insert_with(|| range.unwrap_or_else(described));
        let pointer = format!("{pointer}/{status}");
        let response = resolved(response, components, &pointer)?;
        for (name, value) in &head.headers {
            if name != CONTENT_TYPE && name != CACHE_CONTROL {
                let number = value.to_str().is_ok_and(|text| text.parse::<u64>().is_ok());
                let schema = json!({ "type": if number { "integer" } else { "string" } });
                let description = "Of answers of the idempotency layer.";
                add_header(response, name.as_str(), description, &schema, &pointer)?;
            }
        }
        let content = response.entry("content").or_insert_with(|| json!({}));
        let content = object(content, &format!("{pointer}/content"))?;
        let media = content.entry(PROBLEM).or_insert_with(|| json!({}));
        let media = object(media, &format!("{pointer}/content/{PROBLEM}"))?;
        let schema = media.remove("schema");
        media.insert("schema".into(), with_ours(schema));
        // One example and several exclude each other.
        if !media.contains_key("example") {
            let examples = media.entry("examples").or_insert_with(|| json!({}));
            let examples = object(examples, &format!("{pointer}/content/{PROBLEM}/examples"))?;
            // Invariant: the engine writes its problems as JSON.
            let body: Value = serde_json::from_slice(&body).expect("a problem is JSON");
            let title = body["title"].clone();
            let example = || json!({ "summary": title, "value": body });
            examples.entry(code.as_str()).or_insert_with(example);
        }
        Ok(())
    }
}

/// Whether a response was added by an earlier completion, to which the application had none.
fn is_only_ours(response: &Value) -> bool {
    let content = response.get("content").and_then(Value::as_object);
    content.is_some_and(|content| {
        content.len() == 1
            && content
                .get(PROBLEM)
                .and_then(|problem| problem.get("schema"))
                == Some(&schema::reference())
    })
}

/// The engine's schema, or it beside the application's.
fn with_ours(schema: Option<Value>) -> Value {
    let ours = schema::reference();
    match schema {
        None => ours,
        Some(schema) if schema == ours => ours,
        Some(mut schema) => {
            let alternatives = schema.get_mut("anyOf").and_then(Value::as_array_mut);
            match alternatives {
                Some(alternatives) if alternatives.contains(&ours) => schema,
                _ => json!({ "anyOf": [schema, ours] }),
            }
        }
    }
}

/// Adds a header to a response that has none of this name.
fn add_header(
    response: &mut Map<String, Value>,
    name: &str,
    description: &str,
    schema: &Value,
    pointer: &str,
) -> Result<(), DocumentError> {
    let headers = response.entry("headers").or_insert_with(|| json!({}));
    let headers = object(headers, &format!("{pointer}/headers"))?;
    if !headers.keys().any(|key| key.eq_ignore_ascii_case(name)) {
        let header = json!({ "description": description, "schema": schema });
        headers.insert(name.to_owned(), header);
    }
    Ok(())
}

/// What this is, or refers to.
fn target<'a>(value: &'a Value, components: &'a Value) -> &'a Value {
    let reference = value.get("$ref").and_then(Value::as_str);
    let pointer = reference.and_then(|reference| reference.strip_prefix("#/components"));
    pointer
        .and_then(|pointer| components.pointer(pointer))
        .unwrap_or(value)
}

/// An object that can be added to: a copy of what was referred to, which others may refer to as well.
fn resolved<'a>(
    value: &'a mut Value,
    components: &Value,
    pointer: &str,
) -> Result<&'a mut Map<String, Value>, DocumentError> {
    if value.get("$ref").is_some() {
        let copy = target(value, components).clone();
        *value = copy;
    }
    if value.get("$ref").is_some() {
        let pointer = pointer.to_owned();
        return Err(DocumentError::Malformed { pointer });
    }
    object(value, pointer)
}
