//! The locks and counters of the small concurrent parts, exchanged for a model checker's when one runs.

#[cfg(idempotent_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(all(idempotent_shuttle, not(idempotent_loom)))]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(any(idempotent_loom, idempotent_shuttle)))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

#[cfg(feature = "memory")]
pub(crate) mod atomic {
    #[cfg(idempotent_shuttle)]
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    #[cfg(not(idempotent_shuttle))]
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

/// Locks, even after a panic in another holder: every critical section keeps its data consistent at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
