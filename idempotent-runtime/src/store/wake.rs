//! [`Wake`]: how a store wakes the waiters of an engine.

use std::{fmt, sync::Arc};

use crate::scope::StoreKey;

/// Wakes the waiters of one engine before their next poll. Cheap to clone; outliving the engine is harmless.
#[derive(Clone)]
pub struct Wake(WakeFn);

/// Called with a key for its waiters, with `None` for all waiters.
type WakeFn = Arc<dyn Fn(Option<&StoreKey>) + Send + Sync>;

impl Wake {
    pub(crate) fn new(wake: impl Fn(Option<&StoreKey>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// The record under this key changed: its waiters read it again.
    pub fn key(&self, key: &StoreKey) {
        (self.0)(Some(key));
    }

    /// Notifications may have been missed, as after a reconnect: all waiters read their records again.
    pub fn all(&self) {
        (self.0)(None);
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").finish_non_exhaustive()
    }
}
