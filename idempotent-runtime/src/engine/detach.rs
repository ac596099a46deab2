//! Executions that outlive their client.
//!
//! A server drops a request's future when its client goes away. Before a key is claimed that is right; after the claim
//! was sent it would leave a half-done effect, or a claim without an owner. So the future is polled in place, in the
//! connection's task, for as long as the client stays, which costs nothing. If it is dropped while it [must
//! finish](DetachState::must_finish), it is *detached*: it moves to a task of its own and runs to its end there, with its
//! span (it is instrumented from within) and its subscriber.
//!
//! What the connection's task provided by other means, such as task-locals of outer layers or their time-outs, does not
//! reach a detached execution.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use tracing::{Dispatch, instrument::WithSubscriber};

use super::{
    core::{
        Core,
        room::{CallerHash, PlaceSlot},
    },
    handler::BoxFuture,
};

/// Shared by a future and its [`Detachable`] wrapper. They are never polled and dropped at the same time, so relaxed
/// loads and stores suffice.
#[derive(Debug, Default)]
pub(crate) struct DetachState {
    must_finish: AtomicBool,
    client_left: AtomicBool,
    caller: OnceLock<CallerHash>,
    /// The place that the execution takes while it is detached.
    place: Arc<PlaceSlot>,
}

impl DetachState {
    /// From here on the future must run to its end, with or without its client.
    pub(crate) fn must_finish(&self) {
        self.must_finish.store(true, Ordering::Relaxed);
    }

    /// From here on the future may be dropped again.
    pub(crate) fn may_drop(&self) {
        self.must_finish.store(false, Ordering::Relaxed);
    }

    /// Whether the client has gone.
    pub(crate) fn client_left(&self) -> bool {
        self.client_left.load(Ordering::Relaxed)
    }

    /// The caller, as far as the engine knows one.
    pub(crate) fn caller(&self) -> Option<CallerHash> {
        self.caller.get().copied()
    }

    /// The request has been identified as this caller's.
    pub(crate) fn set_caller(&self, caller: CallerHash) {
        // Set once per request.
        let _ = self.caller.set(caller);
    }

    /// The place that the execution takes while it is detached.
    pub(crate) fn place(&self) -> &Arc<PlaceSlot> {
        &self.place
    }

    /// Takes a place until the guard is dropped.
    pub(crate) fn detach(&self, core: &Core) -> Detached {
        self.place.fill(core.room.enter(self.caller()));
        Detached(Arc::clone(&self.place))
    }
}

/// An execution without a client, until this is dropped.
pub(crate) struct Detached(Arc<PlaceSlot>);

impl Drop for Detached {
    fn drop(&mut self) {
        self.0.clear();
    }
}

/// A future that is polled in place, and finished in a task of its own if it is dropped while it must finish.
pub(crate) struct Detachable<T: Send + 'static> {
    future: Option<BoxFuture<T>>,
    state: Arc<DetachState>,
    core: Arc<Core>,
    /// Where and how to go on: the runtime and subscriber in which it was first found pending.
    home: Option<(Handle, Dispatch)>,
}

impl<T: Send + 'static> Detachable<T> {
    pub(crate) fn new(
        core: Arc<Core>,
        state: Arc<DetachState>,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self {
            future: Some(Box::pin(future)),
            state,
            core,
            home: None,
        }
    }

    /// Remembers the runtime and the subscriber to go on with.
    fn remember_home(&mut self) {
        if self.home.is_none() {
            self.home = Some((
                Handle::current(),
                tracing::dispatcher::get_default(Dispatch::clone),
            ));
        }
    }
}

impl<T: Send + 'static> Future for Detachable<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        // Taken out while it is polled: if it panics, it is dropped here and never detached.
        let Some(mut future) = this.future.take() else {
            panic!("an answered request was polled again");
        };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            // A future that is ready at once is never detached and needs no home.
            this.remember_home();
            this.future = Some(future);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Detachable<T> {
    fn drop(&mut self) {
        let (Some(future), Some((runtime, subscriber))) = (self.future.take(), self.home.take())
        else {
            return;
        };
        if !self.state.must_finish.load(Ordering::Relaxed) {
            return;
        }
        self.state.client_left.store(true, Ordering::Relaxed);
        let detached = self.state.detach(&self.core);
        let finish = async move {
            let _detached = detached;
            drop(future.await);
        };
        runtime.spawn(finish.with_subscriber(subscriber));
    }
}

impl<T: Send + 'static> fmt::Debug for Detachable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detachable")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
