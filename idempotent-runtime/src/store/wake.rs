//! [`Wake`]: how a store wakes the waiters of an engine, and learns for which keys there are any.

use std::{
    any::Any,
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use crate::scope::StoreKey;

/// Wakes the waiters of one engine before their next poll. Cheap to clone; outliving the engine is harmless.
///
/// A store that keeps them in a list forgets the [closed](Self::is_closed) ones when another engine attaches, so that the list
/// does not grow with the engines that have come and gone.
#[derive(Clone)]
pub struct Wake {
    call: WakeFn,
    /// The engine, if it is one's.
    engine: Option<Weak<dyn Any + Send + Sync>>,
    awaited: AwaitedKeys,
}

/// Called with a key for its waiters, with `None` for all waiters.
type WakeFn = Arc<dyn Fn(Option<&StoreKey>) + Send + Sync>;
/// Called with a key and whether anybody waits for it.
type AwaitedFn = Box<dyn Fn(&StoreKey, bool) + Send + Sync>;

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
            call: Arc::new(wake),
            engine: Some(erased),
            awaited: AwaitedKeys::default(),
        }
    }

    #[cfg(test)]
    pub(crate) fn new(wake: impl Fn(Option<&StoreKey>) + Send + Sync + 'static) -> Self {
        Self {
            call: Arc::new(wake),
            engine: None,
            awaited: AwaitedKeys::default(),
        }
    }

    /// The engine tells by these for which keys it has waiters.
    pub(crate) fn telling(self, awaited: AwaitedKeys) -> Self {
        Self { awaited, ..self }
    }

    /// The record under this key changed: its waiters read it again.
    pub fn key(&self, key: &StoreKey) {
        (self.call)(Some(key));
    }

    /// Notifications may have been missed, as after a reconnect: all waiters read their records again.
    pub fn all(&self) {
        (self.call)(None);
    }

    /// Whether the engine is gone, so that there is nobody left to wake.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let engine = self.engine.as_ref();
        engine.is_some_and(|engine| engine.strong_count() == 0)
    }

    /// Has `tell` called with a key and `true` when requests of this engine begin to wait for it, and with the same key
    /// and `false` when they have ended. Calls for one key may overlap, as many with `true` as with `false`.
    ///
    /// A store with push subscribes only while somebody waits. When it has subscribed, it calls [`key`](Self::key), since
    /// the record may have changed before. `tell` must return at once, and must not call the wake itself. Only the first
    /// call counts, which the store makes in [`Store::attach`](super::Store::attach).
    pub fn on_awaited(&self, tell: impl Fn(&StoreKey, bool) + Send + Sync + 'static) {
        // Refused if there is one, as documented.
        let _ = self.awaited.0.set(Box::new(tell));
    }
}

/// Tells the store for which keys an engine has waiters.
#[derive(Clone, Default)]
pub(crate) struct AwaitedKeys(Arc<OnceLock<AwaitedFn>>);

/// Somebody waits for this key, until this is dropped.
pub(crate) struct Awaited {
    told: Option<AwaitedKeys>,
    key: StoreKey,
}

impl AwaitedKeys {
    /// Tells the store that requests wait for this key.
    pub(crate) fn begin(&self, key: StoreKey) -> Awaited {
        let told = self.tell(&key, true).then(|| self.clone());
        Awaited { told, key }
    }

    /// Whether the store wants to know.
    fn tell(&self, key: &StoreKey, awaited: bool) -> bool {
        let tell = self.0.get();
        tell.inspect(|tell| tell(key, awaited)).is_some()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(told) = &self.told {
            told.tell(&self.key, false);
        }
    }
}

impl fmt::Debug for AwaitedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwaitedKeys").finish_non_exhaustive()
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
