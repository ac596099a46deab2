//! What an engine reads of the requests to an endpoint, and answers: for documentation.

use bytes::Bytes;
use http::{HeaderName, Response};

use super::{Idempotency, reply};
use crate::{policy::Policy, problem::ProblemCode};

/// What the routes with one policy have in common for their clients.
pub(crate) struct Answering {
    engine: Idempotency,
    /// The header of the key; `None` where it comes from a function.
    pub(crate) header: Option<String>,
    pub(crate) required: bool,
    pub(crate) require_caller: bool,
    /// Whether a caller or a scope says who calls.
    pub(crate) has_caller: bool,
    /// The header of a replay.
    pub(crate) replay_header: HeaderName,
}

impl Idempotency {
    pub(crate) fn answering(&self, policy: &Policy) -> Answering {
        let settings = self.0.settings(policy);
        let required = policy.required.or(self.0.defaults.required);
        Answering {
            header: (!settings.key_by_function).then(|| settings.header.as_str().to_owned()),
            required: required.unwrap_or(false),
            require_caller: settings.require_caller,
            has_caller: self.0.caller.is_some(),
            replay_header: self.0.replay_header.clone(),
            engine: self.clone(),
        }
    }
}

impl Answering {
    /// The answer with this code.
    pub(crate) fn problem(&self, code: ProblemCode) -> Response<Bytes> {
        reply::problem(&self.engine.0, &code.into())
    }
}
