//! Where the waiters of one key in one process meet.
//!
//! However many wait, one of them, the *leader*, looks at the store; the others sleep until a verdict is
//! published or the lead falls to them:
//!
//! 1. Whoever asks for a turn while nobody leads becomes the leader.
//! 2. A leader that leaves, by an answer, a deadline or a lost client, wakes the longest waiting other.
//! 3. A woken waiter that leaves before it took the lead wakes the next one, so that the lead is never lost.
//! 4. A verdict, once published, stays: whoever asks later gets it too.

use std::{
    collections::BTreeMap,
    mem,
    task::{Context, Poll, Waker},
};

use crate::sync::{Arc, Mutex, lock};

/// The meeting place. `T` is the verdict that ends all waiting.
pub(crate) struct Cell<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    verdict: Option<T>,
    /// Something changed since the leader last looked.
    poked: bool,
    led: bool,
    leader: Option<Waker>,
    /// Those who sleep, the longest waiting first.
    sleepers: BTreeMap<u64, Waker>,
    next_seat: u64,
}

/// What a turn brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// The waiting is over.
    Verdict(T),
    /// This waiter leads now: it looks at the store for all.
    Lead,
}

/// One waiter's place. Dropping it leaves, and passes the lead on.
pub(crate) struct Seat<T> {
    cell: Arc<Cell<T>>,
    number: u64,
    leading: bool,
}

impl<T: Clone> Cell<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                verdict: None,
                // The first leader looks at once: the record may have changed before anybody sat here.
                poked: true,
                led: false,
                leader: None,
                sleepers: BTreeMap::new(),
                next_seat: 0,
            }),
        }
    }

    /// Takes a place.
    pub(crate) fn join(this: &Arc<Self>) -> Seat<T> {
        let mut state = lock(&this.state);
        let number = state.next_seat;
        state.next_seat += 1;
        drop(state);
        Seat { cell: Arc::clone(this), number, leading: false }
    }

    /// Ends all waiting with this verdict. The first one stays.
    pub(crate) fn publish(&self, verdict: T) {
        let mut state = lock(&self.state);
        state.verdict.get_or_insert(verdict);
        let sleepers = mem::take(&mut state.sleepers);
        let leader = state.leader.take();
        drop(state);
        // Wakers are foreign code: they run outside the lock.
        leader.into_iter().chain(sleepers.into_values()).for_each(Waker::wake);
    }

    /// Whether a verdict was published.
    pub(crate) fn is_settled(&self) -> bool {
        lock(&self.state).verdict.is_some()
    }

    /// The record may have changed: the leader looks again now rather than at its next poll.
    pub(crate) fn poke(&self) {
        let mut state = lock(&self.state);
        state.poked = true;
        let woken = state.leader.take();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> Seat<T> {
    /// Waits for the verdict or for the lead.
    pub(crate) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn<T>> {
        let mut state = lock(&self.cell.state);
        if let Some(verdict) = &state.verdict {
            return Poll::Ready(Turn::Verdict(verdict.clone()));
        }
        if self.leading || !state.led {
            state.led = true;
            state.sleepers.remove(&self.number);
            self.leading = true;
            return Poll::Ready(Turn::Lead);
        }
        state.sleepers.insert(self.number, context.waker().clone());
        Poll::Pending
    }

    /// For the leader: waits until something changed since it last looked.
    pub(crate) fn poll_poked(&mut self, context: &mut Context<'_>) -> Poll<()> {
        debug_assert!(self.leading, "only the leader looks at the store");
        let mut state = lock(&self.cell.state);
        if state.verdict.is_some() || mem::take(&mut state.poked) {
            return Poll::Ready(());
        }
        state.leader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.cell.state);
        state.sleepers.remove(&self.number);
        if self.leading {
            state.led = false;
            state.leader = None;
        }
        // Rule 2 and rule 3 at once: nobody leads, so somebody has to be told.
        let next = if state.led { None } else { state.sleepers.pop_first() };
        drop(state);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}
