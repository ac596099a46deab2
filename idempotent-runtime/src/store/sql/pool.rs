//! Connections to a server: the store's own, or those of the application's pool.
//!
//! The store's own are kept here rather than in a pool of sqlx, which asks the server with every return of a
//! connection whether it is still there: a third round trip in what must cost two. Here a connection goes back
//! only if its statement was answered to the end. Any other, because its future was dropped or its answer
//! never came, is closed: nobody can be given the rest of somebody else's answer.
//!
//! No verb waits for ever (a migration may: it has no limit but the ones for its locks). The server is told to give up
//! on a statement after the store's time-out; a server that says nothing at all, not even that, is given up by
//! [`Connections::bounded`] after twice as long.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, Database, Pool, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{Instant, error::Elapsed, timeout},
};

/// How long a server has to let somebody in. Without a limit it is the operating system's: minutes.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may be idle. What stands between here and the server forgets idle ones without a word,
/// many of them after some minutes; a new connection costs less than finding that out with a request.
const IDLE: Duration = Duration::from_secs(60);
/// The client's limit of a statement is no shorter, whatever the server's is: a connection may have to be made first.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long to take leave of the server.
const GOODBYE: Duration = Duration::from_secs(1);

/// Nothing was heard of a server in time.
pub(super) fn late(elapsed: Elapsed) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed))
}

/// How to prepare a new connection.
pub(super) trait Greet<DB: Database>: Send + Sync + 'static {
    fn greet(
        &self,
        connection: &mut DB::Connection,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

/// Where connections come from. Clones share them.
pub(super) struct Connections<DB: Database, G> {
    source: Source<DB, G>,
    patience: Duration,
}

enum Source<DB: Database, G> {
    Own(Arc<Own<DB, G>>),
    Application(Pool<DB>),
}

struct Own<DB: Database, G> {
    options: <DB::Connection as Connection>::Options,
    greet: G,
    most: usize,
    room: Arc<Semaphore>,
    idle: Mutex<Idle<DB::Connection>>,
}

/// Connections that wait to be lent, since when, in the order in which they came back. The last one returned is the
/// first one lent: it is the likeliest to be alive.
struct Idle<C>(Vec<(Instant, C)>);

/// A connection on loan. It goes back by [`Lent::settle`] and is closed if it is dropped before.
pub(super) struct Lent<DB: Database, G> {
    loan: Option<Loan<DB, G>>,
}

enum Loan<DB: Database, G> {
    Own {
        connection: DB::Connection,
        home: Arc<Own<DB, G>>,
        since: Instant,
        /// Given back after the connection, so that who waits for it finds one.
        _permit: OwnedSemaphorePermit,
    },
    Application(PoolConnection<DB>),
}

impl<DB: Database, G: Greet<DB>> Connections<DB, G> {
    /// At most this many connections, made when they are needed. The server gives up on a statement after
    /// `time_out`.
    pub(super) fn own(
        options: <DB::Connection as Connection>::Options,
        greet: G,
        most: usize,
        time_out: Duration,
    ) -> Self {
        let most = most.max(1);
        let room = Arc::new(Semaphore::new(most));
        let idle = Mutex::new(Idle(Vec::new()));
        Self {
            source: Source::Own(Arc::new(Own {
                options,
                greet,
                most,
                room,
                idle,
            })),
            patience: patience(time_out),
        }
    }

    pub(super) fn of_application(pool: Pool<DB>, time_out: Duration) -> Self {
        Self {
            source: Source::Application(pool),
            patience: patience(time_out),
        }
    }

    /// One statement, from asking for a connection to giving it back, or an error when that takes too long. Its
    /// connection is closed then: the answer may come yet.
    pub(super) async fn bounded<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        timeout(self.patience, statement)
            .await
            .unwrap_or_else(|elapsed| Err(late(elapsed)))
    }

    /// How many there can be.
    pub(super) fn most(&self) -> usize {
        match &self.source {
            Source::Own(own) => own.most,
            Source::Application(pool) => pool.options().get_max_connections() as usize,
        }
    }

    pub(super) async fn lend(&self) -> Result<Lent<DB, G>, sqlx::Error> {
        let loan = match &self.source {
            Source::Own(home) => {
                let permit = Arc::clone(&home.room).acquire_owned().await;
                let permit = permit.map_err(|_closed| sqlx::Error::PoolClosed)?;
                let idle = home.used(|idle| idle.0.pop());
                let connection = match idle.map(|(_since, connection)| connection) {
                    Some(connection) => connection,
                    None => home.connect().await?,
                };
                Loan::Own {
                    connection,
                    home: Arc::clone(home),
                    since: Instant::now(),
                    _permit: permit,
                }
            }
            Source::Application(pool) => Loan::Application(pool.acquire().await?),
        };
        Ok(Lent { loan: Some(loan) })
    }

    /// Closes the store's own connections, saying goodbye to the server; those on loan are closed when they
    /// come back.
    pub(super) async fn close(&self) {
        if let Source::Own(own) = &self.source {
            own.room.close();
            // Who returns a connection looks under the same lock whether the room is closed.
            let idle = std::mem::take(&mut own.idle().0);
            let farewells = idle
                .into_iter()
                .map(|(_since, connection)| goodbye::<DB>(connection));
            farewells.collect::<JoinSet<()>>().join_all().await;
        }
    }
}

impl<DB: Database, G: Greet<DB>> Own<DB, G> {
    async fn connect(&self) -> Result<DB::Connection, sqlx::Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            self.greet.greet(&mut connection).await?;
            Ok(connection)
        };
        timeout(CONNECT, connect)
            .await
            .unwrap_or_else(|elapsed| Err(late(elapsed)))
    }
}

impl<DB: Database, G> Own<DB, G> {
    /// Uses the list, and closes what has been in it for too long.
    fn used<T>(&self, work: impl FnOnce(&mut Idle<DB::Connection>) -> T) -> T {
        let (done, aged) = {
            let mut idle = self.idle();
            let aged = idle.aged(Instant::now());
            (work(&mut idle), aged)
        };
        farewell::<DB>(aged);
        done
    }

    /// The list is whole after every push and pop, so a panic elsewhere does not matter to it.
    fn idle(&self) -> std::sync::MutexGuard<'_, Idle<DB::Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
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

/// How long the client waits for a statement that the server gives up on after `time_out`.
fn patience(time_out: Duration) -> Duration {
    time_out.saturating_mul(2).max(SHORTEST)
}

/// Says goodbye to all of these aside: nobody's statement waits for it.
fn farewell<DB: Database>(connections: Vec<DB::Connection>) {
    // A loan may be dropped where no runtime is any more.
    if let Ok(runtime) = Handle::try_current() {
        for connection in connections {
            runtime.spawn(goodbye::<DB>(connection));
        }
    }
}

/// Says goodbye, so that the server need not wonder; one that is gone needs none.
async fn goodbye<DB: Database>(connection: DB::Connection) {
    let _gone = timeout(GOODBYE, connection.close()).await;
}

impl<DB: Database, G> Lent<DB, G> {
    /// Gives the connection back if the server has answered to the end, and without an error of its own.
    pub(super) fn settle<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let whole = match &result {
            Ok(_) => true,
            Err(error) => matches!(
                error,
                // Not after an error of the server: it may mean that this session is of no more use, as on a
                // primary that became a replica, and errors are rare enough to pay for a new connection.
                sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. }
            ),
        };
        if whole {
            match self.loan.take() {
                Some(Loan::Own {
                    connection,
                    home,
                    _permit,
                    ..
                }) => home.used(|idle| {
                    // Not after `close` took the list.
                    if !home.room.is_closed() {
                        idle.0.push((Instant::now(), connection));
                    }
                }),
                // The application's pool takes it back by its drop.
                loan => drop(loan),
            }
        } else {
            match self.loan.take() {
                Some(Loan::Application(mut connection)) => connection.close_on_drop(),
                loan => drop(loan),
            }
        }
        result
    }
}

impl<DB: Database, G> Drop for Lent<DB, G> {
    fn drop(&mut self) {
        match self.loan.take() {
            Some(Loan::Application(mut connection)) => connection.close_on_drop(),
            // No answer came. After a failover that nobody announced none will come on the others either, except on
            // those that have come back since.
            Some(Loan::Own { home, since, .. }) => farewell::<DB>(home.idle().before(since)),
            None => {}
        }
    }
}

impl<DB: Database, G> Deref for Lent<DB, G> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        match self
            .loan
            .as_ref()
            .expect("there until it is settled, which consumes it")
        {
            Loan::Own { connection, .. } => connection,
            Loan::Application(connection) => connection,
        }
    }
}

impl<DB: Database, G> DerefMut for Lent<DB, G> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        match self
            .loan
            .as_mut()
            .expect("there until it is settled, which consumes it")
        {
            Loan::Own { connection, .. } => connection,
            Loan::Application(connection) => connection,
        }
    }
}

impl<DB: Database, G> Clone for Connections<DB, G> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Own(own) => Source::Own(Arc::clone(own)),
            Source::Application(pool) => Source::Application(pool.clone()),
        };
        Self {
            source,
            patience: self.patience,
        }
    }
}

impl<DB: Database, G> fmt::Debug for Connections<DB, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Own(own) => write!(f, "at most {} of its own", own.most),
            Source::Application(_) => f.write_str("the application's pool"),
        }
    }
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
    fn there_is_time_to_connect_however_short_the_time_out() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(Duration::ZERO), seconds(1));
        assert_eq!(patience(Duration::from_millis(50)), seconds(1));
        assert_eq!(patience(seconds(2)), seconds(4));
        assert_eq!(patience(Duration::MAX), Duration::MAX);
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
