//! Panics of code that is not ours.
//!
//! `futures::CatchUnwind` catches what a future panics with while it is polled. A destructor panics later: that of the
//! finished future, which holds the handler's variables, or that of the panic's own payload. Both are caught here too,
//! since each would close the connection without an answer and leave the key without an outcome.

use std::{
    future::Future,
    mem,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    task::{Context, Poll},
};

/// Foreign code panicked. Its message went to the panic hook; it may hold secrets and goes nowhere else.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Calls a function that may panic.
pub(crate) fn catch_unwind<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    // Unwind safe: what panicked is not used again, and what it shares with others was visible to them while it ran.
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        // The payload is foreign code as well. If its destructor panics, the second payload is leaked, not dropped.
        if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(second);
        }
        Panicked
    })
}

/// Drops a value whose destructor may panic.
pub(crate) fn drop_catching<T>(value: T) {
    if catch_unwind(|| drop(value)).is_err() {
        tracing::error!("a destructor panicked");
    }
}

/// A future whose panic is a value, also one of its destructor.
pub(crate) struct Catching<F>(Option<F>);

/// Catches the panics of a future, in a box: a pinned future could not be dropped here.
pub(crate) fn catching<F: Future>(future: F) -> Catching<Pin<Box<F>>> {
    catching_unpin(Box::pin(future))
}

/// Catches the panics of a future that may be moved, such as one that is boxed already.
pub(crate) fn catching_unpin<F: Future + Unpin>(future: F) -> Catching<F> {
    Catching(Some(future))
}

impl<F: Future + Unpin> Future for Catching<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = &mut self.0 else {
            return Poll::Ready(Err(Panicked));
        };
        match catch_unwind(|| Pin::new(future).poll(context)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                let future = self.0.take();
                // A destructor that panics does not undo what the future returned.
                drop_catching(future);
                Poll::Ready(Ok(output))
            }
            Err(panicked) => {
                let future = self.0.take();
                drop_catching(future);
                Poll::Ready(Err(panicked))
            }
        }
    }
}

impl<F> Drop for Catching<F> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            drop_catching(future);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Panics when it is dropped.
    struct Grenade;

    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("the destructor");
        }
    }

    #[tokio::test]
    async fn a_panic_while_polled_is_a_value() {
        assert!(catching(async { panic!("the handler") }).await.is_err());
        assert!(matches!(catching(async { 7 }).await, Ok(7)));
    }

    /// Is ready at once, and panics when it is dropped.
    struct Ready(Grenade);

    impl Future for Ready {
        type Output = u8;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u8> {
            Poll::Ready(7)
        }
    }

    #[tokio::test]
    async fn a_panic_of_a_finished_futures_destructor_does_not_undo_its_output() {
        assert!(matches!(catching(Ready(Grenade)).await, Ok(7)));
    }

    #[tokio::test]
    async fn a_panic_with_a_payload_whose_destructor_panics_is_one_value() {
        assert!(catching(async { panic_any(Grenade) }).await.is_err());
    }

    #[test]
    fn a_future_that_is_dropped_before_its_end_may_panic() {
        let grenade = Grenade;
        let mut future = catching(async move {
            let _held = &grenade;
            std::future::pending::<()>().await;
        });
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut future).poll(&mut context).is_pending());
        drop(future);
    }
}
