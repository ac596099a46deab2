//! Completes OpenAPI documents: what the engine reads and answers, in each operation that it protects.
//!
//! The application's own tool makes the document, and [`Documentation`] adds to it, for each protected operation,
//!
//! 1. the header of the key, with its real name, and whether it is required;
//! 2. every status that the engine may answer with, as problem details, under the profile, the `type` base and the status
//!    of a mismatch that the engine has, with the real answers as examples;
//! 3. the header that marks a replay, on the responses of the application.
//!
//! What the application wrote stays: its descriptions, its parameters, and its schemas, beside which those of the engine
//! stand as alternatives. To complete a document twice changes nothing.
//!
//! Operations are found by a mark in the document, `x-idempotent: true`, or by [a list](Documentation::operation). The
//! mark may be an object with `required` and `header`, where the route has other ones than its engine:
//! `x-idempotent: { "required": true }`. In utoipa it is written as `extensions(("x-idempotent" = json!(true)))`.
//!
//! ```
//! use idempotent_runtime::Idempotency;
//! use serde_json::json;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let idempotency = Idempotency::builder().build()?;
//! let mut document = json!({
//!     "openapi": "3.1.0",
//!     "info": { "title": "Payments", "version": "1" },
//!     "paths": { "/payments": { "post": {
//!         "x-idempotent": true,
//!         "responses": { "201": { "description": "paid" } },
//!     } } },
//! });
//! idempotency.documentation().complete(&mut document)?;
//! let pay = &document["paths"]["/payments"]["post"];
//! assert_eq!(pay["parameters"][0]["name"], "idempotency-key");
//! assert!(pay["responses"]["409"]["content"]["application/problem+json"].is_object());
//! # Ok(())
//! # }
//! ```

use std::{error::Error, fmt};

use http::Method;
use serde_json::{Map, Value};

use crate::{engine::Idempotency, policy::Policy};

mod operation;
mod schema;
#[cfg(any(feature = "utoipa5", feature = "utoipa6"))]
mod utoipa;

use operation::Protected;

/// The mark of a protected operation.
const MARK: &str = "x-idempotent";

/// Completes documents for one engine. See the [module documentation](self).
#[derive(Clone, Debug)]
#[must_use = "it changes a document by `complete`"]
pub struct Documentation {
    engine: Idempotency,
    listed: Vec<(Method, String, Policy)>,
}

/// Why a document was not completed. It is unchanged then.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentError {
    /// It is not of OpenAPI 3.
    Version {
        /// What its member `openapi` says, if anything.
        found: Option<String>,
    },
    /// It has no operation that was listed.
    NoOperation {
        /// The method that was listed.
        method: Method,
        /// The path that was listed.
        path: String,
    },
    /// A part of it does not have the form that OpenAPI gives it.
    Malformed {
        /// Where it is, as a JSON pointer.
        pointer: String,
    },
    /// It has another schema under the name that the engine's has.
    SchemaTaken {
        /// The name.
        name: &'static str,
    },
}

impl Idempotency {
    /// What completes OpenAPI documents for this engine.
    pub fn documentation(&self) -> Documentation {
        Documentation {
            engine: self.clone(),
            listed: Vec::new(),
        }
    }
}

impl Documentation {
    /// Names an operation that is protected, as it stands in the document, and what its route chose differently from the
    /// engine. The names of path parameters need not be the same.
    pub fn operation(mut self, method: Method, path: impl Into<String>, policy: Policy) -> Self {
        self.listed.push((method, path.into(), policy));
        self
    }

    /// Completes a document and returns how many of its operations are protected.
    ///
    /// # Errors
    ///
    /// If the document is not of OpenAPI 3, is malformed where it has to be completed, lacks an operation that was listed,
    /// or has another schema `IdempotencyProblem`. It is unchanged then.
    pub fn complete(&self, document: &mut Value) -> Result<usize, DocumentError> {
        let mut completed = document.clone();
        let count = self.complete_all(&mut completed)?;
        *document = completed;
        Ok(count)
    }

    fn complete_all(&self, document: &mut Value) -> Result<usize, DocumentError> {
        let version = document.get("openapi").and_then(Value::as_str);
        if !version.is_some_and(|version| version.starts_with("3.")) {
            let found = version.map(str::to_owned);
            return Err(DocumentError::Version { found });
        }
        let components = document.get("components").cloned().unwrap_or_default();
        let mut found = vec![false; self.listed.len()];
        let mut count = 0;
        if let Some(paths) = document.get_mut("paths") {
            for (path, item) in object(paths, "/paths")? {
                count += self.complete_path(path, item, &components, &mut found)?;
            }
        }
        if let Some(missing) = found.iter().position(|found| !found) {
            let (method, path, _) = self.listed[missing].clone();
            return Err(DocumentError::NoOperation { method, path });
        }
        if count > 0 {
            schema::define(document)?;
        }
        Ok(count)
    }

    fn complete_path(
        &self,
        path: &str,
        item: &mut Value,
        components: &Value,
        found: &mut [bool],
    ) -> Result<usize, DocumentError> {
        let pointer = format!("/paths/{}", path.replace('~', "~0").replace('/', "~1"));
        let item = object(item, &pointer)?;
        let shared = item.get("parameters").cloned();
        let mut count = 0;
        for (name, operation) in item.iter_mut() {
            if !METHODS.contains(&name.as_str()) {
                continue;
            }
            let pointer = format!("{pointer}/{name}");
            let listed = self.listed.iter().position(|(method, listed, _)| {
                method.as_str().eq_ignore_ascii_case(name) && same_path(listed, path)
            });
            let mark = operation.get(MARK).cloned().unwrap_or(Value::Bool(false));
            let protected = match (listed, mark) {
                (Some(listed), _) => {
                    found[listed] = true;
                    Protected::listed(&self.engine, &self.listed[listed].2)
                }
                (None, Value::Bool(false)) => continue,
                (None, mark) => Protected::marked(&self.engine, &mark).ok_or_else(|| {
                    let pointer = format!("{pointer}/{MARK}");
                    DocumentError::Malformed { pointer }
                })?,
            };
            protected.complete(operation, shared.as_ref(), components, &pointer)?;
            count += 1;
        }
        Ok(count)
    }
}

/// The members of a path item that are operations.
const METHODS: [&str; 9] = [
    "get", "put", "post", "delete", "options", "head", "patch", "trace", "query",
];

/// Whether these are one path, whatever its parameters are called.
fn same_path(one: &str, other: &str) -> bool {
    fn nameless(path: &str) -> impl Iterator<Item = &str> {
        path.split('/').map(|segment| {
            let is_parameter = segment.starts_with('{') && segment.ends_with('}');
            if is_parameter { "{}" } else { segment }
        })
    }
    nameless(one).eq(nameless(other))
}

/// An object of the document, or where it should be one.
fn object<'a>(
    value: &'a mut Value,
    pointer: &str,
) -> Result<&'a mut Map<String, Value>, DocumentError> {
    value
        .as_object_mut()
        .ok_or_else(|| DocumentError::Malformed {
            pointer: pointer.to_owned(),
        })
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found: Some(found) } => write!(
                f,
                "the document is of OpenAPI {found}: only documents of OpenAPI 3 can be completed"
            ),
            Self::Version { found: None } => f.write_str(
                "the document has no member `openapi` with a version: only documents of OpenAPI 3 can be completed",
            ),
            Self::NoOperation { method, path } => write!(
                f,
                "the document has no operation {method} {path}: list operations with the paths of the document"
            ),
            Self::Malformed { pointer } => write!(
                f,
                "the part `{pointer}` of the document does not have the form that OpenAPI gives it"
            ),
            Self::SchemaTaken { name } => write!(
                f,
                "the document has another schema `{name}`: rename it, since the engine's has this name"
            ),
        }
    }
}

impl Error for DocumentError {}
