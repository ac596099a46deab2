//! The store's own connections: made when they are needed, kept while they are good.
//!
//! 1. **Room.** A connection takes one of `most` places, from the attempt to make it to the end of its farewell.
//! 2. **Making.** Each is made in a task with a limit of its own. Whoever asked for it may give up: it is kept for
//!    who comes next. Left half-way by one caller after the other, a server that lets people in more slowly than
//!    they have patience would never be reached.
//! 3. **Who gets it.** A connection that is ready goes to whoever has waited longest, no matter for whom it was made
//!    or by whom it was returned. An error goes to the one who asked.

use std::{
    mem,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection, Database};
use tokio::{
    runtime::Handle,
    select,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{CONNECT, Greet, SHORTEST, late};

/// How long a connection may be idle. What stands between here and the server forgets idle ones without a word,
/// many of them after some minutes; a new connection costs less than finding that out with a request.
const IDLE: Duration = Duration::from_secs(60);

/// How long to take leave of the server.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Own<DB: Database, G> {
    pub(super) options: <DB::Connection as Connection>::Options,
    greet: G,
    pub(super) most: usize,
    /// The places that are free.
    room: Arc<Semaphore>,
    /// A permit for each idle connection, never fewer, or one would be lent to nobody: they change under the lock of
    /// the list only. Now and then there is one more; who gets that finds none idle, and waits again.
    ready: Semaphore,
    idle: Mutex<Idle<Live<DB>>>,
    pace: Pace,
    /// Closed when there are to be no connections any more; it has no permits.
    closing: Arc<Semaphore>,
}

/// How long the next connection may take to be made, in milliseconds.
///
/// A server that is slow and one that vanished in the middle are told apart by time alone, and one that vanished takes
/// up a place until then. So it depends on how long the last one took, and grows with each that was late.
struct Pace(AtomicU64);

/// A connection and its place, which is free when the connection is closed.
pub(super) struct Live<DB: Database> {
    pub(super) connection: DB::Connection,
    _place: OwnedSemaphorePermit,
}

/// Connections that wait to be lent, since when, in the order in which they came back. The last one returned is the
/// first one lent: it is the likeliest to be alive.
struct Idle<C>(Vec<(Instant, C)>);

impl<DB: Database, G: Greet<DB>> Own<DB, G> {
    pub(super) fn new(
        options: <DB::Connection as Connection>::Options,
        greet: G,
        most: usize,
        closing: Arc<Semaphore>,
    ) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            options,
            greet,
            most,
            room: Arc::new(Semaphore::new(most)),
            ready: Semaphore::new(0),
            idle: Mutex::new(Idle(Vec::new())),
            pace: Pace::new(),
            closing,
        }
    }

    /// One that is idle, or the first that is returned or made.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Live<DB>, sqlx::Error> {
        let mut ready = pin!(self.ready.acquire());
        loop {
            select! {
                biased;
                permit = &mut ready => {
                    permit.map_err(closed)?.forget();
                    if let Some(live) = self.used(|idle| idle.0.pop()) {
                        return Ok(live.1);
                    }
                    ready.set(self.ready.acquire());
                }
                // Made, and somebody else's who has waited for longer: then there is still one too few.
                made = self.make() => made?,
            }
        }
    }

    /// Makes another one ready, as soon as there is room. It is made to the end also if nobody waits for that.
    async fn make(self: &Arc<Self>) -> Result<(), sqlx::Error> {
        let place = Arc::clone(&self.room).acquire_owned().await;
        let place = place.map_err(closed)?;
        let (tell, told) = oneshot::channel();
        let home = Arc::clone(self);
        tokio::spawn(async move {
            let made = home.connect().await;
            let made = made.map(|connection| {
                home.keep(Live {
                    connection,
                    _place: place,
                });
            });
            if let Err(Err(error)) = tell.send(made) {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection that nobody waits for any more was not made"
                );
            }
        });
        // Not told only if the task ended with its runtime.
        told.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn connect(&self) -> Result<DB::Connection, sqlx::Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            self.greet.greet(&mut connection).await?;
            Ok(connection)
        };
        let limit = self.pace.limit();
        let began = Instant::now();
        let connected = select! {
            connected = timeout(limit, connect) => connected,
            _ = self.closing.acquire() => return Err(sqlx::Error::PoolClosed),
        };
        match connected {
            Ok(Ok(connection)) => {
                self.pace.took(began.elapsed());
                Ok(connection)
            }
            Ok(refused) => refused,
            Err(elapsed) => {
                self.pace.late(limit);
                Err(late(elapsed))
            }
        }
    }
}

impl<DB: Database, G> Own<DB, G> {
    /// Ready for who has waited longest.
    pub(super) fn keep(&self, live: Live<DB>) {
        let refused = self.used(|idle| {
            // Who closes takes the list under the same lock, and later.
            if self.closing.is_closed() {
                return Some(live);
            }
            idle.0.push((Instant::now(), live));
            self.ready.add_permits(1);
            None
        });
        farewell(refused.into_iter().collect());
    }

    /// A connection that was lent at this moment said nothing. After a failover that nobody announced, those that
    /// have not come back since will say nothing either.
    pub(super) fn distrust(&self, since: Instant) {
        let older = self.without_permits(&mut self.idle(), |idle| idle.before(since));
        farewell(older);
    }

    /// After [`closing`](Self::closing) was closed: says goodbye on those that are idle. Others follow when they
    /// come back.
    pub(super) async fn close(&self) {
        self.room.close();
        self.ready.close();
        let idle = mem::take(&mut self.idle().0);
        let farewells = idle.into_iter().map(|(_since, live)| goodbye(live));
        farewells.collect::<JoinSet<()>>().join_all().await;
    }

    /// Uses the list, and closes what has been in it for too long.
    fn used<T>(&self, work: impl FnOnce(&mut Idle<Live<DB>>) -> T) -> T {
        let (done, aged) = {
            let mut idle = self.idle();
            let aged = self.without_permits(&mut idle, |idle| idle.aged(Instant::now()));
            (work(&mut idle), aged)
        };
        farewell(aged);
        done
    }

    /// Takes connections out of the list, and as many permits as are not on their way to somebody yet.
    fn without_permits<T>(
        &self,
        idle: &mut Idle<T>,
        take: impl FnOnce(&mut Idle<T>) -> Vec<T>,
    ) -> Vec<T> {
        let taken = take(idle);
        self.ready.forget_permits(taken.len());
        taken
    }

    /// The list is whole after every push and pop, so a panic elsewhere does not matter to it.
    fn idle(&self) -> MutexGuard<'_, Idle<Live<DB>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    fn new() -> Self {
        let pace = Self(AtomicU64::new(0));
        pace.set(CONNECT);
        pace
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn took(&self, time: Duration) {
        self.set(time.saturating_mul(4));
    }

    fn late(&self, limit: Duration) {
        self.set(limit.saturating_mul(2));
    }

    fn set(&self, limit: Duration) {
        let millis = limit.clamp(SHORTEST, CONNECT).as_millis();
        let millis = u64::try_from(millis).expect("no more than seconds");
        // It goes with nothing else, so that no order is needed.
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl<C> Idle<C> {
    /// Takes those out that came back too long ago.
    fn aged(&mut self, now: Instant) -> Vec<C> {
        self.first(|since| now.saturating_duration_since(since) >= IDLE)
    }

    /// Takes those out that came back before this moment.
    fn before(&mut self, moment: Instant) -> Vec<C> {
        self.first(|since| since < moment)
    }

    fn first(&mut self, are: impl Fn(Instant) -> bool) -> Vec<C> {
        let first = self.0.partition_point(|(since, _)| are(*since));
        self.0.drain(..first).map(|(_, first)| first).collect()
    }
}

fn closed(_: AcquireError) -> sqlx::Error {
    sqlx::Error::PoolClosed
}

/// Says goodbye to all of these aside: nobody's statement waits for it.
fn farewell<DB: Database>(connections: Vec<Live<DB>>) {
    // A loan may be dropped where no runtime is any more.
    if let Ok(runtime) = Handle::try_current() {
        for live in connections {
            runtime.spawn(goodbye(live));
        }
    }
}

/// Says goodbye, so that the server need not wonder; one that is gone needs none.
async fn goodbye<DB: Database>(live: Live<DB>) {
    let Live { connection, _place } = live;
    let _gone = timeout(GOODBYE, connection.close()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_idle_for_too_long_are_taken_out() {
        let now = Instant::now() + 2 * IDLE;
        let ago = |seconds| now - Duration::from_secs(seconds);
        let mut idle = Idle(vec![
            (ago(90), 'a'),
            (ago(60), 'b'),
            (ago(59), 'c'),
            (now, 'd'),
        ]);
        assert_eq!(idle.aged(now), ['a', 'b']);
        assert_eq!(idle.0.pop().map(|(_, last)| last), Some('d'));
        assert_eq!(idle.aged(now + IDLE), ['c']);
        assert!(idle.aged(now + IDLE).is_empty());
    }

    #[test]
    fn connections_may_take_longer_when_others_did() {
        let seconds = Duration::from_secs;
        let pace = Pace::new();
        assert_eq!(pace.limit(), CONNECT);
        pace.took(Duration::from_millis(3));
        assert_eq!(pace.limit(), seconds(1));
        for limit in [2, 4, 5, 5] {
            pace.late(pace.limit());
            assert_eq!(pace.limit(), seconds(limit));
        }
        pace.took(Duration::from_millis(500));
        assert_eq!(pace.limit(), seconds(2));
    }

    #[test]
    fn those_that_came_back_since_a_silent_loan_began_are_kept() {
        let began = Instant::now();
        let later = began + Duration::from_millis(1);
        let earlier = Instant::now()
            .checked_sub(Duration::from_secs(1))
            .expect("the clock is older than a second");
        let mut idle = Idle(vec![(earlier, 'a'), (earlier, 'b'), (later, 'c')]);
        assert_eq!(idle.before(began), ['a', 'b']);
        assert_eq!(idle.0, [(later, 'c')]);
    }
}
