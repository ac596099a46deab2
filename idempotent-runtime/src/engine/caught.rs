//! Panics of code that is not ours.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

pin_project! {
    /// A future whose panic is an answer.
    pub(crate) struct Caught<F> {
        #[pin]
        future: F,
    }
}

/// Calls something that may panic.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    // Unwind safe for the same reason as below: what panicked is not used again.
    catch_unwind(AssertUnwindSafe(call)).map_err(|_payload| Panicked)
}

/// The handler panicked. What it said went to the panic hook; it may hold secrets and goes nowhere else.
pub(crate) struct Panicked;

impl<F: Future> Caught<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for Caught<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let future = self.project().future;
        // Unwind safe: after a panic the future is never polled again, and what it shared with others was
        // already visible to them while it ran.
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(_payload) => Poll::Ready(Err(Panicked)),
        }
    }
}
