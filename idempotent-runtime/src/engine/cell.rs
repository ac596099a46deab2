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
        Seat {
            cell: Arc::clone(this),
            number,
            leading: false,
        }
    }

    /// Ends all waiting with this verdict. The first one stays.
    pub(crate) fn publish(&self, verdict: T) {
        let mut state = lock(&self.state);
        state.verdict.get_or_insert(verdict);
        let sleepers = mem::take(&mut state.sleepers);
        let leader = state.leader.take();
        drop(state);
        // Wakers are foreign code: they run outside the lock.
        leader
            .into_iter()
            .chain(sleepers.into_values())
            .for_each(Waker::wake);
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
        let next = if state.led {
            None
        } else {
            state.sleepers.pop_first()
        };
        drop(state);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}

#[cfg(all(test, not(idempotent_loom), not(idempotent_shuttle)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A waker that counts.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll<T: Clone>(seat: &mut Seat<T>, count: &Arc<Count>) -> Poll<Turn<T>> {
        seat.poll_turn(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
    }

    #[test]
    fn one_leads_and_the_others_sleep() {
        let cell = Arc::new(Cell::<u8>::new());
        let (mut first, mut second) = (Cell::join(&cell), Cell::join(&cell));
        let woken = Arc::new(Count::default());

        assert_eq!(poll(&mut first, &woken), Poll::Ready(Turn::Lead));
        assert_eq!(poll(&mut second, &woken), Poll::Pending);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_lead_falls_to_the_longest_waiting() {
        let cell = Arc::new(Cell::<u8>::new());
        let mut first = Cell::join(&cell);
        let (mut second, mut third) = (Cell::join(&cell), Cell::join(&cell));
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        assert_eq!(poll(&mut first, &counts[0]), Poll::Ready(Turn::Lead));
        assert_eq!(poll(&mut second, &counts[0]), Poll::Pending);
        assert_eq!(poll(&mut third, &counts[1]), Poll::Pending);

        drop(first);
        assert_eq!(
            counts[0].0.load(Ordering::Relaxed),
            1,
            "the second was told"
        );
        assert_eq!(
            counts[1].0.load(Ordering::Relaxed),
            0,
            "the third sleeps on"
        );

        // The second leaves before it took the lead.
        drop(second);
        assert_eq!(
            counts[1].0.load(Ordering::Relaxed),
            1,
            "now the third was told"
        );
        assert_eq!(poll(&mut third, &counts[1]), Poll::Ready(Turn::Lead));
    }

    #[test]
    fn a_verdict_wakes_all_and_stays() {
        let cell = Arc::new(Cell::<u8>::new());
        let (mut leader, mut other) = (Cell::join(&cell), Cell::join(&cell));
        let count = Arc::new(Count::default());
        assert_eq!(poll(&mut leader, &count), Poll::Ready(Turn::Lead));
        assert_eq!(poll(&mut other, &count), Poll::Pending);
        let waker = Waker::from(Arc::clone(&count));
        assert!(
            leader
                .poll_poked(&mut Context::from_waker(&waker))
                .is_ready(),
            "the first look is due"
        );
        assert!(
            leader
                .poll_poked(&mut Context::from_waker(&waker))
                .is_pending()
        );

        cell.publish(7);
        cell.publish(8);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(poll(&mut other, &count), Poll::Ready(Turn::Verdict(7)));
        assert_eq!(poll(&mut leader, &count), Poll::Ready(Turn::Verdict(7)));
        assert_eq!(
            poll(&mut Cell::join(&cell), &count),
            Poll::Ready(Turn::Verdict(7))
        );
    }

    #[test]
    fn a_poke_reaches_the_next_leader_when_there_is_none() {
        let cell = Arc::new(Cell::<u8>::new());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut first = Cell::join(&cell);
        assert_eq!(first.poll_turn(&mut context), Poll::Ready(Turn::Lead));
        assert!(first.poll_poked(&mut context).is_ready());
        drop(first);

        cell.poke();
        let mut second = Cell::join(&cell);
        assert_eq!(second.poll_turn(&mut context), Poll::Ready(Turn::Lead));
        assert!(
            second.poll_poked(&mut context).is_ready(),
            "the poke was kept"
        );
    }
}

/// Every interleaving, by loom: `RUSTFLAGS="--cfg idempotent_loom" cargo test -p idempotent-runtime --lib cell`.
#[cfg(all(test, idempotent_loom))]
mod interleavings {
    use std::future::poll_fn;

    use loom::{future::block_on, thread};

    use super::*;

    /// Waits as a request does: sleeps, leads when it has to, until the verdict.
    fn wait(cell: &Arc<Cell<u8>>) -> u8 {
        let mut seat = Cell::join(cell);
        block_on(async move {
            loop {
                match poll_fn(|context| seat.poll_turn(context)).await {
                    Turn::Verdict(verdict) => return verdict,
                    Turn::Lead => poll_fn(|context| seat.poll_poked(context)).await,
                }
            }
        })
    }

    #[test]
    fn a_verdict_reaches_leader_and_sleeper() {
        // Three threads: all schedules with up to three preemptions, which is where such bugs are found.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let cell = Arc::new(Cell::new());
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let cell = Arc::clone(&cell);
                    thread::spawn(move || wait(&cell))
                })
                .collect();
            cell.publish(7);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 7);
            }
        });
    }

    #[test]
    fn a_leader_that_leaves_is_succeeded() {
        loom::model(|| {
            let cell = Arc::new(Cell::<u8>::new());
            let mut leader = Cell::join(&cell);
            let lead = block_on(poll_fn(|context| leader.poll_turn(context)));
            assert_eq!(lead, Turn::Lead);
            let successor = {
                let cell = Arc::clone(&cell);
                thread::spawn(move || {
                    let mut seat = Cell::join(&cell);
                    block_on(poll_fn(|context| seat.poll_turn(context)))
                })
            };
            drop(leader);
            assert_eq!(successor.join().unwrap(), Turn::Lead);
        });
    }

    #[test]
    fn a_sleeper_that_leaves_when_its_turn_comes_passes_it_on() {
        loom::model(|| {
            let cell = Arc::new(Cell::<u8>::new());
            let mut leader = Cell::join(&cell);
            let mut leaving = Cell::join(&cell);
            block_on(poll_fn(|context| leader.poll_turn(context)));
            // It sleeps before the last one does, so that the turn falls to it first.
            block_on(poll_fn(|context| {
                assert!(leaving.poll_turn(context).is_pending());
                Poll::Ready(())
            }));
            let last = {
                let cell = Arc::clone(&cell);
                thread::spawn(move || {
                    let mut seat = Cell::join(&cell);
                    block_on(poll_fn(|context| seat.poll_turn(context)))
                })
            };
            let leaver = thread::spawn(move || drop(leaving));
            drop(leader);
            leaver.join().unwrap();
            assert_eq!(last.join().unwrap(), Turn::Lead);
        });
    }

    #[test]
    fn a_poke_is_never_lost() {
        loom::model(|| {
            let cell = Arc::new(Cell::<u8>::new());
            let mut leader = Cell::join(&cell);
            block_on(poll_fn(|context| leader.poll_turn(context)));
            block_on(poll_fn(|context| leader.poll_poked(context)));
            let poker = {
                let cell = Arc::clone(&cell);
                thread::spawn(move || cell.poke())
            };
            // Ends only if the poke arrives.
            block_on(poll_fn(|context| leader.poll_poked(context)));
            poker.join().unwrap();
        });
    }
}
