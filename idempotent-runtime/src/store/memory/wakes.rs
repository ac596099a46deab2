//! The wakes of the engines that use the store.

use std::sync::{PoisonError, RwLock};

use crate::{scope::StoreKey, store::wake::Wake};

/// How many copies of the list there are.
const LANES: usize = 16;

/// A copy of the list for each part of the keys: completions of different keys write no line of memory that they share.
#[derive(Default)]
pub(super) struct Wakes([Lane; LANES]);

/// Alone on its cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Lane(RwLock<Vec<Wake>>);

impl Wakes {
    /// Adds an engine, and forgets those that are gone.
    pub(super) fn attach(&self, wake: &Wake) {
        for Lane(wakes) in &self.0 {
            let mut wakes = wakes.write().unwrap_or_else(PoisonError::into_inner);
            wakes.retain(|wake| !wake.is_closed());
            wakes.push(wake.clone());
        }
    }

    /// Wakes the waiters of this key, in every engine. An engine that is woken attaches nothing, and reads no list.
    pub(super) fn key(&self, key: &StoreKey) {
        let Lane(wakes) = &self.0[usize::from(key.as_bytes()[1]) % LANES];
        let wakes = wakes.read().unwrap_or_else(PoisonError::into_inner);
        wakes.iter().for_each(|wake| wake.key(key));
    }
}

#[cfg(test)]
impl Wakes {
    /// How many engines each copy of the list has.
    pub(super) fn lens(&self) -> [usize; LANES] {
        std::array::from_fn(|lane| self.0[lane].0.read().expect("no panic").len())
    }
}
