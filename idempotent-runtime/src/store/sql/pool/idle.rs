//! The idle connections, and the queue of callers that wait for one.
//!
//! A semaphore has one permit per idle connection, and never fewer, or a connection would be handed to nobody: permits
//! and list change together, under the list's lock. There may be one permit more for a moment, when a connection is
//! evicted while its permit is on the way to a caller: that caller finds none and waits again.

use std::{mem, time::Duration};

#[cfg(not(all(test, idempotent_shuttle)))]
use tokio::sync::Semaphore;
use tokio::{sync::AcquireError, time::Instant};

#[cfg(all(test, idempotent_shuttle))]
use self::interleavings::Semaphore;
use crate::sync::{Mutex, lock};

/// How long a connection may be idle. Middleboxes between client and server drop idle connections silently, many after
/// some minutes; a new connection costs less than finding that out with a request.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// The idle connections in the order of their release, with its time. The last one released is acquired first, because
/// it is the likeliest to work.
pub(super) struct Idle<C> {
    permits: Semaphore,
    list: Mutex<Vec<(Instant, C)>>,
    /// Called with the connections that are evicted.
    evict: fn(Vec<C>),
}

impl<C> Idle<C> {
    pub(super) fn new(evict: fn(Vec<C>)) -> Self {
        Self {
            permits: Semaphore::new(0),
            list: Mutex::new(Vec::new()),
            evict,
        }
    }

    /// The next connection that is or becomes idle. The caller that has waited longest is served first; a dropped call
    /// takes none.
    pub(super) async fn acquire(&self) -> Result<C, AcquireError> {
        loop {
            self.permits.acquire().await?.forget();
            if let Some(connection) = self.pop() {
                return Ok(connection);
            }
        }
    }

    fn pop(&self) -> Option<C> {
        let mut list = lock(&self.list);
        let aged = self.remove_aged(&mut list);
        let popped = list.pop();
        drop(list);
        (self.evict)(aged);
        popped.map(|(_since, connection)| connection)
    }

    pub(super) fn release(&self, connection: C) {
        let mut list = lock(&self.list);
        let mut evicted = self.remove_aged(&mut list);
        // `close` takes the list under the same lock, so that none is left behind.
        if self.permits.is_closed() {
            evicted.push(connection);
        } else {
            list.push((Instant::now(), connection));
            self.permits.add_permits(1);
        }
        drop(list);
        (self.evict)(evicted);
    }

    /// Evicts the connections that were released before this moment.
    pub(super) fn invalidate_before(&self, moment: Instant) {
        let mut list = lock(&self.list);
        let older = self.remove_first(&mut list, |since| since < moment);
        drop(list);
        (self.evict)(older);
    }

    /// Fails all waiting and later calls, evicts all connections that are released later, and returns the idle ones.
    pub(super) fn close(&self) -> Vec<C> {
        let mut list = lock(&self.list);
        self.permits.close();
        let idle = mem::take(&mut *list);
        idle.into_iter().map(|(_since, idle)| idle).collect()
    }

    /// Removes the connections that have been idle for too long.
    fn remove_aged(&self, list: &mut Vec<(Instant, C)>) -> Vec<C> {
        let now = Instant::now();
        self.remove_first(list, |since| {
            now.saturating_duration_since(since) >= MAX_IDLE
        })
    }

    /// Removes the first connections that meet the condition, and as many permits as are not on their way to a caller.
    fn remove_first(
        &self,
        list: &mut Vec<(Instant, C)>,
        condition: impl Fn(Instant) -> bool,
    ) -> Vec<C> {
        let first = list.partition_point(|(since, _)| condition(*since));
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

    /// The result of the future if it is ready at once.
    fn at_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    /// All connections that are idle now.
    fn all(idle: &Idle<char>) -> String {
        iter::from_fn(|| at_once(pin!(idle.acquire()))?.ok()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_were_idle_for_too_long_are_evicted() {
        let idle = Idle::new(drop);
        for (connection, seconds) in [('a', 30), ('b', 1), ('c', 59), ('d', 0)] {
            idle.release(connection);
            tokio::time::advance(SECOND * seconds).await;
        }
        assert_eq!(all(&idle), "dc", "the last one first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_whose_connection_is_evicted_gets_the_next_one() {
        let idle = Idle::new(drop);
        let mut taking = pin!(idle.acquire());
        assert!(at_once(taking.as_mut()).is_none());
        idle.release('a');
        tokio::time::advance(MAX_IDLE).await;
        assert!(at_once(taking.as_mut()).is_none());
        idle.release('b');
        assert_eq!(at_once(taking).and_then(Result::ok), Some('b'));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_released_after_a_failed_one_was_acquired_are_kept() {
        let idle = Idle::new(drop);
        for connection in ['a', 'b', 'c'] {
            idle.release(connection);
            tokio::time::advance(SECOND).await;
        }
        idle.invalidate_before(Instant::now() - SECOND);
        assert_eq!(all(&idle), "c");
    }

    #[tokio::test]
    async fn nothing_is_acquired_after_the_pool_is_closed() {
        let idle = Idle::new(drop);
        idle.release('a');
        assert_eq!(idle.close(), ['a']);
        idle.release('b');
        assert!(idle.acquire().await.is_err());
        assert!(idle.close().is_empty());
    }
}
