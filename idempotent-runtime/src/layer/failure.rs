//! The error of a wrapped service, which the engine does not see.

use std::sync::{Arc, Mutex, PoisonError};

/// Where the error of a wrapped service goes, past the engine.
pub(super) struct Failure<E>(Arc<Mutex<Option<E>>>);

impl<E> Failure<E> {
    pub(super) fn set(&self, error: E) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn take(&self) -> Option<E> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<E> Default for Failure<E> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E> Clone for Failure<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
