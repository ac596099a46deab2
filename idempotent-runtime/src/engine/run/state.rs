//! What one execution holds.

use std::sync::Arc;

use super::lease::Lease;
use crate::{
    engine::{
        core::{Core, in_flight::Admission},
        reply::{Reply, refuse},
    },
    fingerprint::Fingerprint,
    observe::RequestResult,
    policy::Settings,
    problem::ProblemCode,
};

/// An execution that owns its key.
///
/// Always boxed: it passes through several futures, and each would have room for a copy of it.
pub(crate) struct Run {
    pub(super) core: Arc<Core>,
    pub(super) settings: Settings,
    pub(super) fingerprint: Fingerprint,
    pub(super) lease: Lease,
    /// Whether the lease was taken over from a crashed execution, as far as the claim allowed that.
    pub(super) took_over: bool,
    /// What a shutdown waits for; ends with the run.
    pub(super) _admission: Admission,
}

/// How a run is answered: by itself, or by the execution that fenced it out.
pub(crate) type RunResult<B> = Result<(RequestResult, Reply<B>), FencedOut>;

/// Another execution owns the key: its outcome is the answer.
#[derive(Debug)]
pub(crate) struct FencedOut;

impl Run {
    pub(crate) fn new(
        core: Arc<Core>,
        settings: Settings,
        fingerprint: Fingerprint,
        lease: Lease,
        took_over: bool,
        admission: Admission,
    ) -> Box<Self> {
        Box::new(Self {
            core,
            settings,
            fingerprint,
            lease,
            took_over,
            _admission: admission,
        })
    }

    pub(super) fn refuse<B>(&self, code: ProblemCode) -> (RequestResult, Reply<B>) {
        refuse(&self.core, &code.into())
    }
}
