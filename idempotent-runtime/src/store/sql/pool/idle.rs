//! Connections that are idle, and who waits for one.
//!
//! A semaphore has a permit for each, never fewer, or one would be lent to nobody: permits and list change together,
//! under the list's lock. Now and then there is a permit more, which is on its way to somebody while its connection is
//! taken out: who gets that finds none, and waits again.

use std::{mem, time::Duration};

#[cfg(not(all(test, idempotent_shuttle)))]
use tokio::sync::Semaphore;
use tokio::{sync::AcquireError, time::Instant};

#[cfg(all(test, idempotent_shuttle))]
use self::interleavings::Semaphore;
use crate::sync::{Mutex, lock};

/// How long a connection may be idle. What stands between here and the server forgets idle ones without a word,
/// many of them after some minutes; a new connection costs less than finding that out with a request.
const LONGEST: Duration = Duration::from_secs(60);

/// Since when each is idle, in the order in which they came back. The last one returned is the first one lent: it is
/// the likeliest to be alive.
pub(super) struct Idle<C> {
    permits: Semaphore,
    list: Mutex<Vec<(Instant, C)>>,
    /// What becomes of those that are not to be lent any more.
    part: fn(Vec<C>),
}

impl<C> Idle<C> {
    pub(super) fn new(part: fn(Vec<C>)) -> Self {
        Self {
            permits: Semaphore::new(0),
            list: Mutex::new(Vec::new()),
            part,
        }
    }

    /// The next one that is idle or becomes so; whoever has waited longest gets it. Dropped in between, it takes none.
    pub(super) async fn take(&self) -> Result<C, AcquireError> {
        loop {
            self.permits.acquire().await?.forget();
            if let Some(connection) = self.pop() {
                return Ok(connection);
            }
        }
    }

    fn pop(&self) -> Option<C> {
        let mut list = lock(&self.list);
        let aged = self.aged(&mut list);
        let popped = list.pop();
        drop(list);
        (self.part)(aged);
        popped.map(|(_since, connection)| connection)
    }

    pub(super) fn put(&self, connection: C) {
        let mut list = lock(&self.list);
        let mut left = self.aged(&mut list);
        // Who closes takes the list under the same lock, and later.
        if self.permits.is_closed() {
            left.push(connection);
        } else {
            list.push((Instant::now(), connection));
            self.permits.add_permits(1);
        }
        drop(list);
        (self.part)(left);
    }

    /// Parts with those that have been here since before this moment.
    pub(super) fn part_before(&self, moment: Instant) {
        let mut list = lock(&self.list);
        let older = self.without(&mut list, |since| since < moment);
        drop(list);
        (self.part)(older);
    }

    /// Who waits, or comes later, is told so, and whatever comes back is parted with. Gives those that are here.
    pub(super) fn close(&self) -> Vec<C> {
        let mut list = lock(&self.list);
        self.permits.close();
        let idle = mem::take(&mut *list);
        idle.into_iter().map(|(_since, idle)| idle).collect()
    }

    /// Takes those out that came back too long ago.
    fn aged(&self, list: &mut Vec<(Instant, C)>) -> Vec<C> {
        let now = Instant::now();
        self.without(list, |since| {
            now.saturating_duration_since(since) >= LONGEST
        })
    }

    /// Takes the first ones out, and as many permits as are not on their way to somebody yet.
    fn without(&self, list: &mut Vec<(Instant, C)>, are: impl Fn(Instant) -> bool) -> Vec<C> {
        let first = list.partition_point(|(since, _)| are(*since));
        self.permits.forget_permits(first);
        list.drain(..first).map(|(_since, first)| first).collect()
    }
}

#[cfg(all(test, idempotent_shuttle))]
mod interleavings;

#[cfg(all(test, not(any(idempotent_loom, idempotent_shuttle))))]
mod tests {
    use std::{
        iter,
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What it comes to without waiting.
    fn at_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    /// All that can be had at once.
    fn all(idle: &Idle<char>) -> String {
        iter::from_fn(|| at_once(pin!(idle.take()))?.ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_were_idle_for_too_long_are_not_lent() {
        let idle = Idle::new(drop);
        for (connection, seconds) in [('a', 30), ('b', 1), ('c', 59), ('d', 0)] {
            idle.put(connection);
            tokio::time::advance(SECOND * seconds).await;
        }
        assert_eq!(all(&idle), "dc", "the last one first");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_promised_one_that_is_too_old_by_now_gets_the_next() {
        let idle = Idle::new(drop);
        let mut taking = pin!(idle.take());
        assert!(at_once(taking.as_mut()).is_none());
        idle.put('a');
        tokio::time::advance(LONGEST).await;
        assert!(at_once(taking.as_mut()).is_none());
        idle.put('b');
        assert_eq!(at_once(taking).and_then(Result::ok), Some('b'));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_came_back_since_a_silent_loan_began_are_kept() {
        let idle = Idle::new(drop);
        for connection in ['a', 'b', 'c'] {
            idle.put(connection);
            tokio::time::advance(SECOND).await;
        }
        idle.part_before(Instant::now() - SECOND);
        assert_eq!(all(&idle), "c");
    }

    #[tokio::test]
    async fn nothing_is_lent_after_the_end() {
        let idle = Idle::new(drop);
        idle.put('a');
        assert_eq!(idle.close(), ['a']);
        idle.put('b');
        assert!(idle.take().await.is_err());
        assert!(idle.close().is_empty());
    }
}
