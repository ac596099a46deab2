//! The wakes of the engines that use the store.

use std::sync::OnceLock;

use crate::{scope::StoreKey, store::wake::Wake};

/// A linked list that only grows, by one per engine, so that its many readers need no lock.
#[derive(Default)]
pub(super) struct Wakes(OnceLock<Box<Attached>>);

struct Attached {
    wake: Wake,
    next: OnceLock<Box<Attached>>,
}

impl Wakes {
    pub(super) fn attach(&self, wake: Wake) {
        let mut attached = Box::new(Attached {
            wake,
            next: OnceLock::new(),
        });
        let mut end = &self.0;
        while let Err(refused) = end.set(attached) {
            attached = refused;
            end = &end.get().expect("only a full cell refuses").next;
        }
    }

    pub(super) fn key(&self, key: &StoreKey) {
        let mut next = &self.0;
        while let Some(attached) = next.get() {
            attached.wake.key(key);
            next = &attached.next;
        }
    }
}
