//! A handle on the [`DetachState`] of a request, wherever that is kept.

use std::{ops::Deref, sync::Arc};

use super::{detach_state::DetachState, lease::Lease, room::Room};

/// The state of a request that waited before it executed is its own; that of another is a part of its lease.
#[derive(Clone)]
pub(crate) enum DetachHandle {
    Request(Arc<DetachState>),
    Execution(Arc<Lease>),
}

/// An execution without a client, until this is dropped.
pub(crate) struct Detached(DetachHandle);

impl DetachHandle {
    /// The client leaves. A place until the guard is dropped, if the request must be served to its end.
    pub(crate) fn leave(&self, room: &Room) -> Option<Detached> {
        DetachState::leave(self).then(|| self.detach(room))
    }

    /// Takes a place until the guard is dropped.
    pub(crate) fn detach(&self, room: &Room) -> Detached {
        self.fill(room);
        Detached(self.clone())
    }
}

impl Deref for DetachHandle {
    type Target = DetachState;

    fn deref(&self) -> &DetachState {
        match self {
            Self::Request(state) => state,
            Self::Execution(lease) => lease.detach_state(),
        }
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.clear();
    }
}
