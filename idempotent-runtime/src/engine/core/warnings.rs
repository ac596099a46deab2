//! What the log says once, and not for each request.

use std::sync::atomic::{AtomicBool, Ordering};

use dashmap::DashMap;

/// The most endpoints to remember. Beyond it nothing more is said: names of endpoints are bounded, but by no number.
const MOST: usize = 1000;

/// What was said already.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    no_scope: AtomicBool,
    nobody_found: DashMap<Box<str>, ()>,
    caller_inside: DashMap<Box<str>, ()>,
    signed_anew: AtomicBool,
    grpc: AtomicBool,
}

impl Warnings {
    /// A request has credentials, and nothing else says who calls.
    pub(crate) fn no_scope(&self) {
        if !self.no_scope.load(Ordering::Relaxed) && !self.no_scope.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "no scope is set, so callers are told apart by their credentials alone: a retry with a renewed token gets \
                 `caller_mismatch`. Set `Builder::scope`, or the `caller` of each route"
            );
        }
    }

    /// The scope of this endpoint found nobody.
    pub(crate) fn nobody_found(&self, endpoint: &str) {
        if is_new(&self.nobody_found, endpoint) {
            tracing::warn!(
                endpoint,
                "the scope found no caller for a request, so its credentials count instead: if the scope reads what a \
                 layer inserts, that layer must be outside; to refuse such requests, set `require_caller`"
            );
        }
    }

    /// This endpoint has a caller, inside of an engine that has none.
    pub(crate) fn caller_inside(&self, endpoint: &str) {
        if is_new(&self.caller_inside, endpoint) {
            tracing::warn!(
                endpoint,
                "an idempotency layer around this route has no caller and replays stored answers without asking the \
                 route's: give that layer the same `caller`"
            );
        }
    }

    /// A gRPC call that is not protected came with a key, or without one that is required.
    pub(crate) fn grpc(&self) {
        if !self.grpc.load(Ordering::Relaxed) && !self.grpc.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a gRPC call that the idempotency layer would cover passes it unprotected: only unary methods that are \
                 listed by `IdempotencyLayer::grpc` (feature `grpc`) are protected. List it, put the layer around the \
                 HTTP routes only, or leave the key away. This is said once"
            );
        }
    }

    /// A key was used with other credentials, of a scheme that makes new ones for each request.
    pub(crate) fn signed_anew(&self, scheme: &str) {
        if !self.signed_anew.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                scheme,
                "no scope says who calls, and this scheme makes new credentials for each request, so that every retry gets \
                 `caller_mismatch`: set `caller` or a scope that names the account behind the signature"
            );
        }
    }
}

/// Whether this is the first time that this is said of the endpoint.
fn is_new(said: &DashMap<Box<str>, ()>, endpoint: &str) -> bool {
    !said.contains_key(endpoint) && said.len() < MOST && said.insert(endpoint.into(), ()).is_none()
}
