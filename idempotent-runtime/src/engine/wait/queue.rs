//! The queue of the duplicates that wait for one key in one process.
//!
//! However many wait, one of them, the *leader*, polls the store. The others sleep until a verdict is published or they
//! become the leader:
//!
//! 1. A waiter that asks for its turn while there is no leader becomes the leader.
//! 2. A leader that leaves (by an answer, a deadline or a lost client) wakes the waiter that has waited longest.
//! 3. A waiter that was woken and leaves before it became the leader wakes the next one, so that the lead is never lost.
//! 4. A published verdict stays: a waiter that asks later gets it too.

use std::{
    collections::BTreeMap,
    mem,
    task::{Context, Poll, Waker},
};

use crate::sync::{Arc, Mutex, lock};

/// The queue of one key. `T` is the verdict that ends all waiting.
pub(crate) struct WaitQueue<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    verdict: Option<T>,
    /// The record may have changed since the leader last polled.
    notified: bool,
    led: bool,
    leader: Option<Waker>,
    /// The waiters that sleep, the one that has waited longest first.
    sleepers: BTreeMap<u64, Waker>,
    next_number: u64,
}

/// What a turn brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// The waiting is over.
    Verdict(T),
    /// This waiter leads now: it polls the store for all.
    Lead,
}

/// One waiter's place in the queue. Dropping it leaves the queue and passes the lead on.
pub(crate) struct Ticket<T> {
    queue: Arc<WaitQueue<T>>,
    number: u64,
    leading: bool,
}

impl<T: Clone> WaitQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                verdict: None,
                // The first leader polls at once: the record may have changed before the queue existed.
                notified: true,
                led: false,
                leader: None,
                sleepers: BTreeMap::new(),
                next_number: 0,
            }),
        }
    }

    /// Joins the queue.
    pub(crate) fn join(this: &Arc<Self>) -> Ticket<T> {
        let mut state = lock(&this.state);
        let number = state.next_number;
        state.next_number += 1;
        drop(state);
        Ticket {
            queue: Arc::clone(this),
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
    pub(crate) fn has_verdict(&self) -> bool {
        lock(&self.state).verdict.is_some()
    }

    /// The record may have changed: the leader polls now and does not wait for its next turn.
    pub(crate) fn notify(&self) {
        let mut state = lock(&self.state);
        state.notified = true;
        let woken = state.leader.take();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

impl<T: Clone> Ticket<T> {
    /// Waits for the verdict or for the lead.
    pub(crate) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Turn<T>> {
        let mut state = lock(&self.queue.state);
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

    /// For the leader: waits until the record may have changed since its last poll.
    pub(crate) fn poll_notified(&mut self, context: &mut Context<'_>) -> Poll<()> {
        debug_assert!(self.leading, "only the leader polls the store");
        let mut state = lock(&self.queue.state);
        if state.verdict.is_some() || mem::take(&mut state.notified) {
            return Poll::Ready(());
        }
        state.leader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.sleepers.remove(&self.number);
        if self.leading {
            state.led = false;
            state.leader = None;
        }
        // Rules 2 and 3 at once: without a leader, the next waiter is woken.
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

    fn poll<T: Clone>(ticket: &mut Ticket<T>, count: &Arc<Count>) -> Poll<Turn<T>> {
        ticket.poll_turn(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
    }

    #[test]
    fn one_leads_and_the_others_sleep() {
        let queue = Arc::new(WaitQueue::<u8>::new());
        let (mut first, mut second) = (WaitQueue::join(&queue), WaitQueue::join(&queue));
        let woken = Arc::new(Count::default());

        assert_eq!(poll(&mut first, &woken), Poll::Ready(Turn::Lead));
        assert_eq!(poll(&mut second, &woken), Poll::Pending);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_lead_falls_to_the_longest_waiting() {
        let queue = Arc::new(WaitQueue::<u8>::new());
        let mut first = WaitQueue::join(&queue);
        let (mut second, mut third) = (WaitQueue::join(&queue), WaitQueue::join(&queue));
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        assert_eq!(poll(&mut first, &counts[0]), Poll::Ready(Turn::Lead));
        assert_eq!(poll(&mut second, &counts[0]), Poll::Pending);
        assert_eq!(poll(&mut third, &counts[1]), Poll::Pending);

        drop(first);
        assert_eq!(
            counts[0].0.load(Ordering::Relaxed),
            1,
            "the second was woken"
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
            "now the third was woken"
        );
        assert_eq!(poll(&mut third, &counts[1]), Poll::Ready(Turn::Lead));
    }

    #[test]
    fn a_verdict_wakes_all_and_stays() {
        let queue = Arc::new(WaitQueue::<u8>::new());
        let (mut leader, mut other) = (WaitQueue::join(&queue), WaitQueue::join(&queue));
        let count = Arc::new(Count::default());
        assert_eq!(poll(&mut leader, &count), Poll::Ready(Turn::Lead));
        assert_eq!(poll(&mut other, &count), Poll::Pending);
        let waker = Waker::from(Arc::clone(&count));
        assert!(
            leader
                .poll_notified(&mut Context::from_waker(&waker))
                .is_ready(),
            "the first poll is due"
        );
        assert!(
            leader
                .poll_notified(&mut Context::from_waker(&waker))
                .is_pending()
        );

        queue.publish(7);
        queue.publish(8);
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(poll(&mut other, &count), Poll::Ready(Turn::Verdict(7)));
        assert_eq!(poll(&mut leader, &count), Poll::Ready(Turn::Verdict(7)));
        assert_eq!(
            poll(&mut WaitQueue::join(&queue), &count),
            Poll::Ready(Turn::Verdict(7))
        );
    }

    #[test]
    fn a_notification_without_a_leader_reaches_the_next_one() {
        let queue = Arc::new(WaitQueue::<u8>::new());
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let mut first = WaitQueue::join(&queue);
        assert_eq!(first.poll_turn(&mut context), Poll::Ready(Turn::Lead));
        assert!(first.poll_notified(&mut context).is_ready());
        drop(first);

        queue.notify();
        let mut second = WaitQueue::join(&queue);
        assert_eq!(second.poll_turn(&mut context), Poll::Ready(Turn::Lead));
        assert!(
            second.poll_notified(&mut context).is_ready(),
            "the notification was kept"
        );
    }
}

/// Every interleaving, by loom: `RUSTFLAGS="--cfg idempotent_loom" cargo test -p idempotent-runtime --lib queue`.
#[cfg(all(test, idempotent_loom))]
mod interleavings {
    use std::future::poll_fn;

    use loom::{future::block_on, thread};

    use super::*;

    /// Waits as a request does: sleeps, leads when it has to, until the verdict.
    fn wait(queue: &Arc<WaitQueue<u8>>) -> u8 {
        let mut ticket = WaitQueue::join(queue);
        block_on(async move {
            loop {
                match poll_fn(|context| ticket.poll_turn(context)).await {
                    Turn::Verdict(verdict) => return verdict,
                    Turn::Lead => poll_fn(|context| ticket.poll_notified(context)).await,
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
            let queue = Arc::new(WaitQueue::new());
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let queue = Arc::clone(&queue);
                    thread::spawn(move || wait(&queue))
                })
                .collect();
            queue.publish(7);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), 7);
            }
        });
    }

    #[test]
    fn a_leader_that_leaves_has_a_successor() {
        loom::model(|| {
            let queue = Arc::new(WaitQueue::<u8>::new());
            let mut leader = WaitQueue::join(&queue);
            let lead = block_on(poll_fn(|context| leader.poll_turn(context)));
            assert_eq!(lead, Turn::Lead);
            let successor = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let mut ticket = WaitQueue::join(&queue);
                    block_on(poll_fn(|context| ticket.poll_turn(context)))
                })
            };
            drop(leader);
            assert_eq!(successor.join().unwrap(), Turn::Lead);
        });
    }

    #[test]
    fn a_sleeper_that_leaves_when_its_turn_comes_passes_it_on() {
        loom::model(|| {
            let queue = Arc::new(WaitQueue::<u8>::new());
            let mut leader = WaitQueue::join(&queue);
            let mut leaving = WaitQueue::join(&queue);
            block_on(poll_fn(|context| leader.poll_turn(context)));
            // It sleeps before the last one does, so that the turn falls to it first.
            block_on(poll_fn(|context| {
                assert!(leaving.poll_turn(context).is_pending());
                Poll::Ready(())
            }));
            let last = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || {
                    let mut ticket = WaitQueue::join(&queue);
                    block_on(poll_fn(|context| ticket.poll_turn(context)))
                })
            };
            let leaver = thread::spawn(move || drop(leaving));
            drop(leader);
            leaver.join().unwrap();
            assert_eq!(last.join().unwrap(), Turn::Lead);
        });
    }

    #[test]
    fn a_notification_is_never_lost() {
        loom::model(|| {
            let queue = Arc::new(WaitQueue::<u8>::new());
            let mut leader = WaitQueue::join(&queue);
            block_on(poll_fn(|context| leader.poll_turn(context)));
            block_on(poll_fn(|context| leader.poll_notified(context)));
            let notifyr = {
                let queue = Arc::clone(&queue);
                thread::spawn(move || queue.notify())
            };
            // Ends only if the notification arrives.
            block_on(poll_fn(|context| leader.poll_notified(context)));
            notifyr.join().unwrap();
        });
    }
}
