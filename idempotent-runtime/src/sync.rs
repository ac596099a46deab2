//! The locks of the small concurrent parts, exchanged for a model checker's when one runs.

#[cfg(idempotent_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(all(idempotent_shuttle, not(idempotent_loom)))]
pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(any(idempotent_loom, idempotent_shuttle)))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};

/// Locks, also after a panic elsewhere: every critical section here leaves its data whole at each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
