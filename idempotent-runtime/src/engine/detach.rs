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
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use tracing::{Dispatch, instrument::WithSubscriber};

use super::{core::gauge::Gauge, handler::BoxFuture};

/// Shared by a future and its [`Detachable`] wrapper. They are never polled and dropped at the same time, so relaxed
/// loads and stores suffice.
#[derive(Debug, Default)]
pub(crate) struct DetachState {
    must_finish: AtomicBool,
    client_left: AtomicBool,
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
}

/// A future that is polled in place, and finished in a task of its own if it is dropped while it must finish.
pub(crate) struct Detachable<T: Send + 'static> {
    future: Option<BoxFuture<T>>,
    state: Arc<DetachState>,
    detached: Gauge,
    /// Where and how to go on: the runtime and subscriber in which it was first found pending.
    home: Option<(Handle, Dispatch)>,
}

impl<T: Send + 'static> Detachable<T> {
    pub(crate) fn new(
        state: Arc<DetachState>,
        detached: Gauge,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self {
            future: Some(Box::pin(future)),
            state,
            detached,
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
        let guard = self.detached.enter();
        let finish = async move {
            let _counted = guard;
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
