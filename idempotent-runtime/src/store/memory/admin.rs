//! What operators do: records that are forgotten, and the newest of their acts.

use std::{collections::VecDeque, time::SystemTime};

use super::{MemoryStore, Shared};
use crate::{
    store::{
        admin::{Administrable, Event, Kept, Seen},
        erased::Operation,
        record::Write,
    },
    sync::{Mutex, lock},
};

/// How many events are kept; older ones make room.
const MAX_EVENTS: usize = 10_000;

/// The newest events, the newest first.
pub(super) struct Events(Mutex<VecDeque<Kept>>);

impl Events {
    pub(super) fn new() -> Self {
        Self(Mutex::new(VecDeque::new()))
    }

    fn append(&self, at: SystemTime, event: Event) {
        let mut events = lock(&self.0);
        events.truncate(MAX_EVENTS - 1);
        events.push_front(Kept::new(at, event));
    }
}

impl Administrable for MemoryStore {
    fn append<'a>(&'a self, event: &'a Event) -> Operation<'a, ()> {
        Box::pin(async move {
            let Shared { clock, events, .. } = &*self.shared;
            events.append(clock.wall(clock.now()), event.clone());
            Ok(())
        })
    }

    fn events(&self, limit: usize) -> Operation<'_, Vec<Kept>> {
        Box::pin(async move {
            let events = lock(&self.shared.events.0);
            Ok(events.iter().take(limit).cloned().collect())
        })
    }

    fn forget<'a>(&'a self, record: &'a Seen) -> Operation<'a, Write> {
        Box::pin(async move {
            let write = self.shared.table.forget(record, self.shared.clock.now());
            self.shared.report();
            Ok(self.shared.announce(&record.key, write))
        })
    }
}
