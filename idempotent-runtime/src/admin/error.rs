//! [`Refusal`]: why a route does not do what it was asked, as problem details (RFC 9457).

use std::borrow::Cow;

use axum::body::Body;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use serde::Serialize;

use crate::{
    OperatorError, ResolveError,
    key::KeyError,
    store::{StoreError, StoreErrorKind, inspect::InvalidKeyPrefix},
};

/// Why a route does not do what it was asked. Contains nothing of the request's body.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    #[serde(serialize_with = "number")]
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    /// The records that the beginning of an ID may mean.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    candidates: Vec<String>,
    #[serde(skip)]
    allow: Option<&'static str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            candidates: vec![],
            allow: None,
        }
    }

    pub(super) fn denied() -> Self {
        let detail = "the service does not let you see this";
        Self::new(StatusCode::FORBIDDEN, "denied", detail)
    }

    pub(super) fn read_only() -> Self {
        let detail = "the service lets you read only; nothing was changed";
        Self::new(StatusCode::FORBIDDEN, "read_only", detail)
    }

    pub(super) fn writes_off() -> Self {
        let detail = "the engine lets nobody write here: `Builder::admin_writes(true)` does; nothing was changed";
        Self::new(StatusCode::FORBIDDEN, "writes_off", detail)
    }

    pub(super) fn cross_origin() -> Self {
        let detail = "the page of another site asked for this; nothing was changed";
        Self::new(StatusCode::FORBIDDEN, "cross_origin", detail)
    }

    pub(super) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no_route",
            "there is nothing at this path",
        )
    }

    pub(super) fn other_method(allow: &'static str) -> Self {
        let detail = "this path takes another method";
        let mut refusal = Self::new(StatusCode::METHOD_NOT_ALLOWED, "other_method", detail);
        refusal.allow = Some(allow);
        refusal
    }

    pub(super) fn not_json() -> Self {
        let detail = "the body has to be `application/json`; nothing was changed";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail)
    }

    /// The body or the query does not say what is needed.
    pub(super) fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let detail = format!("the body is larger than {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn not_found() -> Self {
        let detail = "there is no such record, or it has expired";
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn ambiguous(candidates: Vec<String>) -> Self {
        let detail = "several IDs begin so: give more digits";
        let mut refusal = Self::new(StatusCode::CONFLICT, "ambiguous", detail);
        refusal.candidates = candidates;
        refusal
    }

    pub(super) fn busy() -> Self {
        let detail = "others are scanning the store: ask again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    pub(super) fn unreadable() -> Self {
        let detail = "the response cannot be read: it is damaged, or encrypted under a key that this engine does not have";
        Self::new(StatusCode::CONFLICT, "record_unreadable", detail)
    }

    /// What is done on a task of its own ended without a result.
    pub(super) fn interrupted() -> Self {
        let detail = "it was interrupted and may have been done: look at the record and its audit";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "interrupted", detail)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        // Invariant: texts and a number are always JSON.
        let text = serde_json::to_string(&self).expect("texts are JSON");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_key", error.to_string())
    }
}

impl From<InvalidKeyPrefix> for Refusal {
    fn from(error: InvalidKeyPrefix) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_id", error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error.kind() {
            StoreErrorKind::InvalidCursor => {
                Self::new(StatusCode::BAD_REQUEST, "invalid_cursor", error.to_string())
            }
            StoreErrorKind::NotInspectable => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "not_inspectable",
                error.to_string(),
            ),
            _ => {
                // Its sources may name servers and statements: they are for the log.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the store failed an admin request"
                );
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store_failed",
                    error.to_string(),
                )
            }
        }
    }
}

impl From<OperatorError> for Refusal {
    fn from(error: OperatorError) -> Self {
        let detail = error.to_string();
        match error {
            OperatorError::Resolve(error) => error.into(),
            OperatorError::NotCompleted => Self::new(StatusCode::CONFLICT, "not_completed", detail),
            OperatorError::NotAdministrable => {
                Self::new(StatusCode::NOT_IMPLEMENTED, "no_audit", detail)
            }
            OperatorError::DoneWithoutAudit(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an operator's act was done and not kept in the audit"
                );
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "done_without_audit",
                    detail,
                )
            }
        }
    }
}

impl From<ResolveError> for Refusal {
    fn from(error: ResolveError) -> Self {
        let detail = error.to_string();
        match error {
            ResolveError::NotFound => Self::not_found(),
            ResolveError::InFlight => Self::new(StatusCode::CONFLICT, "in_flight", detail),
            ResolveError::AlreadyCompleted => {
                Self::new(StatusCode::CONFLICT, "already_completed", detail)
            }
            ResolveError::NotStorable(error) => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "not_storable",
                format!("{detail}: {error}"),
            ),
            ResolveError::Store(error) => error.into(),
        }
    }
}
