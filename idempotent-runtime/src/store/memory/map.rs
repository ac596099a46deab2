//! Rows by key, each accessed under a lock: dashmap's, or the model checker's when one runs.
//!
//! The table relies on four properties of the map: an entry is exclusive while it is held, a look-up that finds
//! nothing holds no lock afterwards, different keys rarely block each other, and no entry may be requested while
//! another is held.

use super::row::Row;
use crate::scope::StoreKey;

#[cfg(idempotent_shuttle)]
pub(super) use self::checked::{Entry, Map};
#[cfg(not(idempotent_shuttle))]
pub(super) use self::production::Map;
#[cfg(not(idempotent_shuttle))]
pub(super) use dashmap::Entry;

#[cfg(not(idempotent_shuttle))]
mod production {
    use dashmap::{DashMap, Entry};

    use super::{Row, StoreKey};

    /// More shards than dashmap's default on small machines: growing a shard copies it under its lock, and at a
    /// million records a 64th of them is copied in well under a millisecond.
    const SHARDS: usize = 64;

    /// Rows are boxed: up to half of the slots are empty, and an empty slot of eight bytes costs little.
    ///
    /// The default hasher is keyed. Store keys are digests, but a client can compute them if the scope has no
    /// secret, and could choose keys that collide in a hasher that only takes some of their bits.
    pub(in super::super) struct Map(DashMap<StoreKey, Box<Row>>);

    impl Map {
        pub(in super::super) fn new() -> Self {
            Self(DashMap::with_shard_amount(SHARDS))
        }

        pub(in super::super) fn entry(&self, key: StoreKey) -> Entry<'_, StoreKey, Box<Row>> {
            self.0.entry(key)
        }

        pub(in super::super) fn update<R>(
            &self,
            key: &StoreKey,
            f: impl FnOnce(&mut Row) -> R,
        ) -> Option<R> {
            self.0.get_mut(key).map(|mut row| f(&mut row))
        }

        pub(in super::super) fn view<R>(
            &self,
            key: &StoreKey,
            f: impl FnOnce(&Row) -> R,
        ) -> Option<R> {
            self.0.view(key, |_, row| f(row))
        }

        #[cfg(test)]
        pub(in super::super) fn each(&self, mut f: impl FnMut(&StoreKey, &Row)) {
            self.0.iter().for_each(|row| f(row.key(), row.value()));
        }
    }
}

/// The same four properties from sharded hash maps whose locks the model checker schedules.
#[cfg(idempotent_shuttle)]
mod checked {
    use std::collections::HashMap;

    use super::{Row, StoreKey};
    use crate::sync::{Mutex, MutexGuard, lock};

    /// Two, so that some keys share a lock and others do not.
    const SHARDS: usize = 2;

    type Rows = HashMap<StoreKey, Box<Row>>;

    pub(in super::super) struct Map([Mutex<Rows>; SHARDS]);

    pub(in super::super) enum Entry<'a> {
        Occupied(Occupied<'a>),
        Vacant(Vacant<'a>),
    }

    pub(in super::super) struct Occupied<'a>(MutexGuard<'a, Rows>, StoreKey);

    pub(in super::super) struct Vacant<'a>(MutexGuard<'a, Rows>, StoreKey);

    impl Map {
        pub(in super::super) fn new() -> Self {
            Self(std::array::from_fn(|_| Mutex::new(Rows::new())))
        }

        pub(in super::super) fn entry(&self, key: StoreKey) -> Entry<'_> {
            let rows = self.shard(&key);
            if rows.contains_key(&key) {
                Entry::Occupied(Occupied(rows, key))
            } else {
                Entry::Vacant(Vacant(rows, key))
            }
        }

        pub(in super::super) fn update<R>(
            &self,
            key: &StoreKey,
            f: impl FnOnce(&mut Row) -> R,
        ) -> Option<R> {
            self.shard(key).get_mut(key).map(|row| f(row))
        }

        pub(in super::super) fn view<R>(
            &self,
            key: &StoreKey,
            f: impl FnOnce(&Row) -> R,
        ) -> Option<R> {
            self.shard(key).get(key).map(|row| f(row))
        }

        #[cfg(test)]
        pub(in super::super) fn each(&self, mut f: impl FnMut(&StoreKey, &Row)) {
            for rows in &self.0 {
                lock(rows).iter().for_each(|(key, row)| f(key, row));
            }
        }

        fn shard(&self, key: &StoreKey) -> MutexGuard<'_, Rows> {
            lock(&self.0[usize::from(key.as_bytes()[0]) % SHARDS])
        }
    }

    impl Occupied<'_> {
        pub(in super::super) fn get(&self) -> &Row {
            &self.0[&self.1]
        }

        pub(in super::super) fn get_mut(&mut self) -> &mut Row {
            self.0
                .get_mut(&self.1)
                .expect("the entry was found under the guard it still holds")
        }

        pub(in super::super) fn remove(mut self) -> Option<Box<Row>> {
            self.0.remove(&self.1)
        }
    }

    impl Vacant<'_> {
        pub(in super::super) fn insert(mut self, row: Box<Row>) {
            self.0.insert(self.1, row);
        }
    }
}
