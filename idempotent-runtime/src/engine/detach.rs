//! Requests that outlive their client.
//!
//! A server drops a request's future when its client goes away. Before a key is claimed that is right; after the claim
//! was sent it would leave a half-done effect, or a claim without an owner. So the future is polled in place, in the
//! connection's task, for as long as the client stays, which costs nothing. If it is dropped while it must be served to its
//! end ([`Leave`]), it is *detached*: it moves to a task of its own and runs to its end there, with its span (which it
//! enters itself) and its subscriber.
//!
//! What the connection's task provided by other means, such as task-locals of outer layers or their time-outs, does not
//! reach a detached execution.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use tracing::{Dispatch, instrument::WithSubscriber};

use super::core::{detach_handle::Detached, runtime::TaskRuntime};

/// A future that may have to be finished without its client.
pub(crate) trait Leave: Future + Send {
    /// The client leaves. `None` if the future may be dropped; otherwise it must be polled to its end, and holds this
    /// until then.
    fn leave(&mut self) -> Option<Detached>;
}

type BoxLeave<T> = Pin<Box<dyn Leave<Output = T> + Unpin>>;

/// A future that is polled in place, and finished in a task of its own if it is dropped while it must finish.
pub(crate) struct Detachable<T: Send + 'static> {
    future: Option<BoxLeave<T>>,
    runtime: TaskRuntime,
    /// Where and how to go on: the chosen runtime or that, and the subscriber, in which it was first found pending, or is dropped.
    home: Option<(Handle, Dispatch)>,
}

impl<T: Send + 'static> Detachable<T> {
    pub(crate) fn new(
        future: impl Leave<Output = T> + Unpin + 'static,
        runtime: TaskRuntime,
    ) -> Self {
        Self {
            future: Some(Box::pin(future)),
            runtime,
            home: None,
        }
    }

    /// Remembers the runtime and the subscriber to go on with.
    fn remember_home(&mut self) {
        if self.home.is_none()
            && let Some(runtime) = self.runtime.handle()
        {
            let subscriber = tracing::dispatcher::get_default(Dispatch::clone);
            self.home = Some((runtime, subscriber));
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
        let Some(mut future) = self.future.take() else {
            return;
        };
        let Some(detached) = future.leave() else {
            return;
        };
        // It may be dropped before it is polled for the first time.
        self.remember_home();
        let Some((runtime, subscriber)) = self.home.take() else {
            tracing::error!("a request was dropped outside of a runtime: its outcome is unknown");
            return;
        };
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
            .field("answered", &self.future.is_none())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::engine::core::{
        detach_handle::DetachHandle, detach_state::DetachState, gauge::Gauge, room::Room,
    };

    /// Says that it was polled to its end.
    struct Finishes(Arc<AtomicBool>, Option<DetachHandle>, Room);

    impl Future for Finishes {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            self.0.store(true, Ordering::Relaxed);
            Poll::Ready(())
        }
    }

    impl Leave for Finishes {
        fn leave(&mut self) -> Option<Detached> {
            self.1.as_ref()?.leave(&self.2)
        }
    }

    #[tokio::test]
    async fn what_must_finish_is_finished_also_if_it_was_never_polled() {
        let (finished, state) = (Arc::new(AtomicBool::new(false)), DetachState::new(None));
        state.must_finish();
        let handle = DetachHandle::Request(Arc::new(state));
        let room = Room::new(Gauge::internal(), 8);
        let future = Finishes(Arc::clone(&finished), Some(handle), room);
        drop(Detachable::new(future, TaskRuntime::default()));
        // Its task is the only other one of this runtime.
        tokio::task::yield_now().await;
        assert!(finished.load(Ordering::Relaxed));
    }
}
