//! Room for executions that go on without their client: bounded in all, and per caller.

use std::sync::{Arc, Mutex, PoisonError};

use dashmap::{DashMap, Entry};

use super::gauge::{Gauge, GaugeGuard};

/// A caller, as far as the share of one needs it: a keyed hash of its scope or credentials.
pub(crate) type CallerHash = u64;

/// The room of one engine.
#[derive(Debug)]
pub(crate) struct Room {
    detached: Gauge,
    per_caller: Arc<DashMap<CallerHash, usize>>,
    max: usize,
    /// What one caller may take: a quarter of the room, and at least one place.
    share: usize,
    hasher: std::hash::RandomState,
}

/// One place in the room.
#[derive(Debug)]
pub(crate) struct Place {
    _counted: GaugeGuard,
    caller: Option<(CallerHash, Arc<DashMap<CallerHash, usize>>)>,
}

/// The place of one execution, if it has one. An overdue execution loses its place and takes no other.
#[derive(Debug, Default)]
pub(crate) struct PlaceSlot(Mutex<Slot>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Taken {
        #[expect(dead_code, reason = "its drop frees the place")]
        place: Place,
        /// The tasks of the execution that go on without its client: the place is theirs until the last one ends.
        tasks: usize,
    },
    Overdue,
}

impl Room {
    pub(crate) fn new(detached: Gauge, max: usize) -> Self {
        Self {
            detached,
            per_caller: Arc::default(),
            max,
            share: (max / 4).max(1),
            hasher: std::hash::RandomState::new(),
        }
    }

    /// The detached executions that take room.
    pub(crate) fn detached(&self) -> &Gauge {
        &self.detached
    }

    /// A hash of what identifies a caller. Without an identity there is no caller to share with.
    pub(crate) fn caller(&self, identity: &[u8]) -> CallerHash {
        use std::hash::BuildHasher;
        self.hasher.hash_one(identity)
    }

    /// Whether one more execution of this caller could go on without its client.
    pub(crate) fn has_place(&self, caller: Option<CallerHash>) -> bool {
        let taken = self.detached.count();
        if taken >= self.max {
            return false;
        }
        // While fewer are taken than one caller may take, no caller can have reached its share.
        taken < self.share
            || caller.is_none_or(|caller| {
                self.per_caller
                    .get(&caller)
                    .is_none_or(|taken| *taken < self.share)
            })
    }

    /// Takes a place. An execution that started has to go on, so this never refuses: new ones are refused before they
    /// start, by [`has_place`](Self::has_place).
    pub(crate) fn enter(&self, caller: Option<CallerHash>) -> Place {
        let caller = caller.map(|caller| {
            *self.per_caller.entry(caller).or_insert(0) += 1;
            (caller, Arc::clone(&self.per_caller))
        });
        Place {
            _counted: self.detached.enter(),
            caller,
        }
    }
}

impl PlaceSlot {
    /// Keeps this place until the execution ends or is overdue.
    pub(crate) fn fill(&self, place: Place) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Slot::Empty => *slot = Slot::Taken { place, tasks: 1 },
            Slot::Taken { tasks, .. } => *tasks += 1,
            Slot::Overdue => {}
        }
    }

    /// A task of the execution has ended.
    pub(crate) fn clear(&self) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Slot::Taken { tasks, .. } if *tasks > 1 => *tasks -= 1,
            Slot::Taken { .. } => *slot = Slot::Empty,
            Slot::Empty | Slot::Overdue => {}
        }
    }

    /// The execution is overdue: it takes no room from others any more.
    pub(crate) fn overdue(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Slot::Overdue;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((caller, places)) = &self.caller
            && let Entry::Occupied(mut entry) = places.entry(*caller)
        {
            if *entry.get() <= 1 {
                entry.remove();
            } else {
                *entry.get_mut() -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_takes_at_most_a_quarter_and_the_others_the_rest() {
        let room = Room::new(Gauge::internal(), 8);
        let (one, other) = (room.caller(b"one"), room.caller(b"other"));
        let mut places = vec![room.enter(Some(one)), room.enter(Some(one))];
        assert!(!room.has_place(Some(one)), "a quarter of 8 is 2");
        assert!(room.has_place(Some(other)));
        assert!(room.has_place(None));
        places.pop();
        assert!(room.has_place(Some(one)));
        drop(places);
        assert!(room.per_caller.is_empty());
        assert_eq!(room.detached().count(), 0);
    }

    #[test]
    fn callers_without_an_identity_share_the_whole_room() {
        let room = Room::new(Gauge::internal(), 3);
        let places: Vec<_> = (0..3).map(|_| room.enter(None)).collect();
        assert!(!room.has_place(None));
        drop(places);
        assert!(room.has_place(None));
    }

    #[test]
    fn a_place_is_free_when_the_last_task_of_its_execution_has_ended() {
        let room = Room::new(Gauge::internal(), 1);
        let slot = PlaceSlot::default();
        slot.fill(room.enter(None));
        slot.fill(room.enter(None));
        assert_eq!(room.detached().count(), 1);
        slot.clear();
        assert!(!room.has_place(None));
        slot.clear();
        assert!(room.has_place(None));
    }

    #[test]
    fn an_overdue_execution_takes_no_place() {
        let room = Room::new(Gauge::internal(), 1);
        let slot = PlaceSlot::default();
        slot.fill(room.enter(None));
        assert!(!room.has_place(None));
        slot.overdue();
        assert!(room.has_place(None));
        slot.fill(room.enter(None));
        assert!(room.has_place(None), "nor a second one");
    }
}
