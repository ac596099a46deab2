//! What one execution holds.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{
        core::{Core, doubt::Doubt, in_flight::Admission, lease::Lease},
        detach::DetachState,
        reply::{Reply, refuse},
    },
    observe::RequestResult,
    policy::Settings,
    problem::ProblemCode,
};

/// An execution that owns its key.
///
/// Always boxed: it passes through several futures, and each would have room for a copy of it.
pub(crate) struct Run {
    pub(crate) core: Arc<Core>,
    pub(crate) settings: Settings,
    pub(crate) lease: Arc<Lease>,
    pub(crate) doubt: Doubt,
    pub(crate) detach: Arc<DetachState>,
    /// The registration of the execution; a shutdown waits for as long as it exists.
    pub(crate) admission: Admission,
    /// How long the outcome replays, where the handler chose that.
    pub(crate) ttl: Option<Duration>,
}

/// How a run is answered: by itself, or by the execution that fenced it out.
pub(crate) type RunResult<B> = Result<(RequestResult, Reply<B>), FencedOut>;

/// Another execution owns the key: its outcome is the answer.
#[derive(Debug)]
pub(crate) struct FencedOut;

impl Run {
    /// The outcome replays for this time instead of the route's ttl.
    pub(super) fn keep_for(&mut self, ttl: Duration) {
        self.ttl = Some(ttl);
        self.doubt.keep_for(ttl);
    }

    pub(super) fn refuse<B>(&self, code: ProblemCode) -> (RequestResult, Reply<B>) {
        refuse(&self.core, &code.into())
    }
}
