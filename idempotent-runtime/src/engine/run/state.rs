//! What one execution holds.

use std::{sync::Arc, time::Duration};

use crate::{
    engine::{
        core::{
            Core, detach_handle::DetachHandle, doubt::Doubt, in_flight::Admission, lease::Lease,
            plan::Plan,
        },
        reply::{Reply, refuse},
    },
    observe::RequestResult,
    policy::Settings,
    problem::ProblemCode,
};

/// An execution that owns its key.
pub(crate) struct Run {
    pub(crate) core: Arc<Core>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) doubt: Doubt,
    /// The registration of the execution; a shutdown waits for as long as it exists.
    pub(crate) admission: Admission,
    /// How long the outcome replays, where the handler chose that.
    pub(crate) ttl: Option<Duration>,
}

/// An answer, and how the request ended.
pub(crate) type Answered<B> = (RequestResult, Reply<B>);

/// What is needed to the end of a request, whatever becomes of it.
pub(crate) struct After {
    pub(crate) core: Arc<Core>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) detach: DetachHandle,
}

/// How a run is answered: by itself, or by the execution that fenced it out.
pub(crate) type RunResult<B> = Result<Answered<B>, FencedOut>;

/// Another execution owns the key: its outcome is the answer, if it is of the same request.
pub(crate) struct FencedOut {
    pub(crate) core: Arc<Core>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) lease: Arc<Lease>,
}

impl Run {
    pub(crate) fn settings(&self) -> &Settings {
        &self.plan.settings
    }

    /// What the execution and its connection know of each other.
    pub(crate) fn detach(&self) -> DetachHandle {
        DetachHandle::Execution(Arc::clone(&self.lease))
    }

    /// What is needed after it.
    pub(crate) fn after(&self) -> After {
        After {
            core: Arc::clone(&self.core),
            plan: Arc::clone(&self.plan),
            detach: self.detach(),
        }
    }

    /// Nothing is owned any more.
    pub(super) fn fenced_out(self) -> FencedOut {
        FencedOut {
            core: self.core,
            plan: self.plan,
            lease: self.lease,
        }
    }

    /// The outcome replays for this time instead of the route's ttl.
    pub(super) fn keep_for(&mut self, ttl: Duration) {
        self.ttl = Some(ttl);
        self.doubt.keep_for(ttl);
    }

    pub(super) fn refuse<B>(&self, code: ProblemCode) -> Answered<B> {
        refuse(&self.core, &code.into())
    }
}
