//! What an execution and its connection know of each other: whether the client is there, and what goes on without it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::room::{CallerHash, PlaceSlot, Room};

/// Shared by the steps of a request and the future that the server polls. They never run at the same time, so relaxed
/// loads and stores suffice; `place`, which the keeper reaches too, has a lock of its own.
#[derive(Debug, Default)]
pub(crate) struct DetachState {
    must_finish: AtomicBool,
    client_left: AtomicBool,
    caller: OnceLock<CallerHash>,
    /// The place that the execution takes while it is detached.
    place: PlaceSlot,
}

impl DetachState {
    /// For a request of this caller, as far as the engine knows one.
    pub(crate) fn new(caller: Option<CallerHash>) -> Self {
        let state = Self::default();
        if let Some(hash) = caller {
            state.set_caller(hash);
        }
        state
    }

    /// From here on the request must be served to its end, with or without its client.
    pub(crate) fn must_finish(&self) {
        self.must_finish.store(true, Ordering::Relaxed);
    }

    /// From here on it may be dropped again.
    pub(crate) fn may_drop(&self) {
        self.must_finish.store(false, Ordering::Relaxed);
    }

    /// Whether the client has gone.
    pub(crate) fn client_left(&self) -> bool {
        self.client_left.load(Ordering::Relaxed)
    }

    /// The request has been identified as this caller's.
    pub(crate) fn set_caller(&self, caller: CallerHash) {
        // Set once per request.
        let _ = self.caller.set(caller);
    }

    /// The client leaves; `false` if the request may be dropped.
    pub(super) fn leave(&self) -> bool {
        let must_finish = self.must_finish.load(Ordering::Relaxed);
        if must_finish {
            self.client_left.store(true, Ordering::Relaxed);
        }
        must_finish
    }

    /// Takes a place, until it is [cleared](Self::clear).
    pub(super) fn fill(&self, room: &Room) {
        self.place.fill(room.enter(self.caller.get().copied()));
    }

    /// One that took a place has ended.
    pub(super) fn clear(&self) {
        self.place.clear();
    }

    /// The execution is overdue: it takes no room from others any more.
    pub(super) fn overdue(&self) {
        self.place.overdue();
    }
}
