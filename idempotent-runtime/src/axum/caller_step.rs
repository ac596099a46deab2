//! The step that finds out who calls, before a handler's arguments are extracted.

use std::{fmt, future::Future};

use ::axum::http::request::Parts;

use crate::{boxes::BoxFuture, caller::Authenticated};

/// The caller step of a handler: extracts who calls, in a router with this state.
pub(super) type CallerStep<S> = fn(Parts, &S) -> CallerFuture;

/// The caller step at work.
pub struct CallerFuture(BoxFuture<Authenticated>);

impl CallerFuture {
    pub(super) fn new(step: impl Future<Output = Authenticated> + Send + 'static) -> Self {
        Self(Box::pin(step))
    }

    pub(super) fn into_future(self) -> BoxFuture<Authenticated> {
        self.0
    }
}

impl fmt::Debug for CallerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerFuture")
    }
}
