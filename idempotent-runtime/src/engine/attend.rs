//! Executions that outlive their client.
//!
//! A server drops a request's future when its client goes away. Before a key is claimed that is right;
//! from the claim on it would leave an effect half done, or a claim that nobody owns. So the future is
//! polled in place, inside the connection's task, for as long as the client stays, which costs nothing; and
//! when it is dropped half-way while it is *committed*, it is handed over to a task of its own and runs
//! to its end there, with the span it had (it is instrumented from within) and the subscriber it had.
//!
//! What the connection's task provided by other means, such as task-locals of outer layers or their
//! time-outs, does not reach an execution that was handed over.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::runtime::Handle;
use tracing::{Dispatch, instrument::WithSubscriber};

use super::boundary::BoxFuture;
use crate::observe;

/// Shared by a future and its [`Attended`] wrapper. They are never polled and dropped at the same time, so
/// relaxed loads and stores suffice.
#[derive(Debug, Default)]
pub(crate) struct Attendance {
    committed: AtomicBool,
    left: AtomicBool,
}

impl Attendance {
    /// From here on the future must run to its end, client or not.
    pub(crate) fn commit(&self) {
        self.committed.store(true, Ordering::Relaxed);
    }

    /// The future may be dropped again.
    pub(crate) fn uncommit(&self) {
        self.committed.store(false, Ordering::Relaxed);
    }

    /// Whether the client has gone.
    pub(crate) fn client_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

/// Counts what runs at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    running: Arc<AtomicUsize>,
    gauge: fn(f64),
}

impl Counted {
    /// Counts executions without a client, and shows them.
    pub(crate) fn detached() -> Self {
        Self {
            running: Arc::default(),
            gauge: observe::detached,
        }
    }

    /// Counts for the engine alone.
    pub(crate) fn silent() -> Self {
        Self {
            running: Arc::default(),
            gauge: |_| {},
        }
    }

    /// How many run now.
    pub(crate) fn count(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Counts one more until the guard is dropped.
    pub(crate) fn enter(&self) -> CountedGuard {
        self.running.fetch_add(1, Ordering::Relaxed);
        (self.gauge)(1.0);
        CountedGuard(self.clone())
    }

    /// The same, if fewer than `most` run.
    pub(crate) fn enter_below(&self, most: usize) -> Option<CountedGuard> {
        let guard = self.enter();
        (self.count() <= most).then_some(guard)
    }
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct CountedGuard(Counted);

impl Drop for CountedGuard {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
        (self.0.gauge)(-1.0);
    }
}

/// A future that is polled in place, and finished elsewhere if it is dropped half-way while committed.
pub(crate) struct Attended<T: Send + 'static> {
    future: Option<BoxFuture<T>>,
    attendance: Arc<Attendance>,
    detached: Counted,
    /// Where and how to go on: the runtime and subscriber in which it was first found pending.
    home: Option<(Handle, Dispatch)>,
}

impl<T: Send + 'static> Attended<T> {
    pub(crate) fn new(
        attendance: Arc<Attendance>,
        detached: Counted,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        Self {
            future: Some(Box::pin(future)),
            attendance,
            detached,
            home: None,
        }
    }

    /// Remembers the runtime and subscriber to go on with.
    fn settle(&mut self) {
        if self.home.is_none() {
            self.home = Some((
                Handle::current(),
                tracing::dispatcher::get_default(Dispatch::clone),
            ));
        }
    }
}

impl<T: Send + 'static> Future for Attended<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        // Taken out while it is polled: if it panics it is dropped here and never handed over.
        let Some(mut future) = this.future.take() else {
            panic!("an answered request was polled again");
        };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            // One that is ready at once is never handed over, and needs no home.
            this.settle();
            this.future = Some(future);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Attended<T> {
    fn drop(&mut self) {
        let (Some(future), Some((runtime, subscriber))) = (self.future.take(), self.home.take())
        else {
            return;
        };
        if !self.attendance.committed.load(Ordering::Relaxed) {
            return;
        }
        self.attendance.left.store(true, Ordering::Relaxed);
        let guard = self.detached.enter();
        let finish = async move {
            let _counted = guard;
            drop(future.await);
        };
        runtime.spawn(finish.with_subscriber(subscriber));
    }
}

impl<T: Send + 'static> fmt::Debug for Attended<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attended")
            .field("attendance", &self.attendance)
            .finish_non_exhaustive()
    }
}
