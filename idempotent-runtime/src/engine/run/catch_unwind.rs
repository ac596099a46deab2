//! Panics of code that is not ours.

use std::{
    future::Future,
    panic::{self, AssertUnwindSafe},
};

use futures_util::FutureExt;

/// Foreign code panicked. Its message went to the panic hook; it may hold secrets and goes nowhere else.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Calls a function that may panic.
pub(crate) fn catch_unwind<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    // Unwind safe for the same reason as below.
    panic::catch_unwind(AssertUnwindSafe(call)).map_err(|_payload| Panicked)
}

/// A future whose panic is a value.
pub(crate) fn catching<F: Future>(future: F) -> impl Future<Output = Result<F::Output, Panicked>> {
    // Unwind safe: after a panic the future is never polled again, and what it shares with others was visible to them
    // while it ran.
    AssertUnwindSafe(future)
        .catch_unwind()
        .map(|caught| caught.map_err(|_payload| Panicked))
}
