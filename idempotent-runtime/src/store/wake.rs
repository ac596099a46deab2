//! [`Wake`]: how a store wakes the waiters of an engine.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

use crate::scope::StoreKey;

/// Wakes the waiters of one engine before their next poll. Cheap to clone; outliving the engine is harmless.
///
/// A store that keeps them in a list forgets the [closed](Self::is_closed) ones when another engine attaches, so that the list
/// does not grow with the engines that have come and gone.
#[derive(Clone)]
pub struct Wake {
    wake: WakeFn,
    /// The engine, if it is one's.
    engine: Option<Weak<dyn Any + Send + Sync>>,
}

/// Called with a key for its waiters, with `None` for all waiters.
type WakeFn = Arc<dyn Fn(Option<&StoreKey>) + Send + Sync>;

impl Wake {
    /// Calls this for as long as the engine exists.
    pub(crate) fn of_engine<E: Send + Sync + 'static>(
        engine: &Arc<E>,
        wake: impl Fn(&E, Option<&StoreKey>) + Send + Sync + 'static,
    ) -> Self {
        // Weak: the store may outlive the engine and must not keep it alive.
        let weak = Arc::downgrade(engine);
        let erased: Weak<dyn Any + Send + Sync> = weak.clone();
        let wake = move |key: Option<&StoreKey>| {
            if let Some(engine) = weak.upgrade() {
                wake(&engine, key);
            }
        };
        Self {
            wake: Arc::new(wake),
            engine: Some(erased),
        }
    }

    #[cfg(test)]
    pub(crate) fn new(wake: impl Fn(Option<&StoreKey>) + Send + Sync + 'static) -> Self {
        Self {
            wake: Arc::new(wake),
            engine: None,
        }
    }

    /// The record under this key changed: its waiters read it again.
    pub fn key(&self, key: &StoreKey) {
        (self.wake)(Some(key));
    }

    /// Notifications may have been missed, as after a reconnect: all waiters read their records again.
    pub fn all(&self) {
        (self.wake)(None);
    }

    /// Whether the engine is gone, so that there is nobody left to wake.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let engine = self.engine.as_ref();
        engine.is_some_and(|engine| engine.strong_count() == 0)
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake")
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_wake_is_closed_once_its_engine_is_gone() {
        let engine = Arc::new(AtomicUsize::new(0));
        let wake = Wake::of_engine(&engine, |woken, key| {
            woken.fetch_add(1 + usize::from(key.is_some()), Ordering::Relaxed);
        });
        wake.all();
        wake.key(&StoreKey::from_bytes([1; 32]));
        assert_eq!(engine.load(Ordering::Relaxed), 3);
        assert!(!wake.is_closed());
        drop(engine);
        assert!(wake.is_closed() && wake.clone().is_closed());
        wake.all();
    }
}
