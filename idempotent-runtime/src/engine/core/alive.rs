//! How many engines there are.

use std::sync::atomic::{AtomicUsize, Ordering};

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts one engine for as long as it lives.
#[derive(Debug)]
pub(in crate::engine) struct Alive(());

impl Alive {
    pub(in crate::engine) fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self(())
    }

    /// How many engines live in this process. Only what is logged depends on it.
    #[cfg(feature = "handlers")]
    pub(in crate::engine) fn count() -> usize {
        ALIVE.load(Ordering::Relaxed)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}
