//! Connections to a server: the store's own, or those of the application's pool.
//!
//! The store's own are kept here rather than in a pool of sqlx, which asks the server with every return of a
//! connection whether it is still there: a third round trip in what must cost two. Here a connection goes back
//! only if its statement was answered to the end. Any other, because its future was dropped or its answer
//! never came, is closed: nobody can be given the rest of somebody else's answer.
//!
//! No operation waits for ever (a migration may: it has no limit but the ones for its locks). The server is told to give up
//! on a statement after the store's time-out; a server that says nothing at all, not even that, is given up by
//! [`Connections::bounded`] after twice as long. A connection that is being made then is not: see [`own`].

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection, Database, Pool, pool::PoolConnection};
use tokio::{
    sync::Semaphore,
    time::{Instant, error::Elapsed, timeout},
};

use self::own::{Live, Own};

mod idle;
mod own;

/// How long a server has to let somebody in. Without a limit it is the operating system's: minutes. It is long enough for
/// the dozen round trips of a handshake between continents, or for two packets of it that get lost: a first packet is
/// sent again after one second, and after two more. However quick the server was before, it gets that long: lost packets
/// take the same time on every way.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// The client's limit of a statement is no shorter, whatever the server's is: a connection may have to be made first.
const SHORTEST: Duration = Duration::from_secs(1);

/// Nothing was heard of a server in time.
pub(super) fn late(elapsed: Elapsed) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, elapsed))
}

/// Whether this is such an error.
pub(super) fn is_late(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
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
    /// Closed by [`close`](Self::close); it has no permits.
    closing: Arc<Semaphore>,
}

enum Source<DB: Database, G> {
    Own(Arc<Own<DB, G>>),
    Application(Pool<DB>),
}

/// A connection on loan. It goes back by [`Lent::settle`] and is closed if it is dropped before.
pub(super) struct Lent<DB: Database, G> {
    loan: Option<Loan<DB, G>>,
}

enum Loan<DB: Database, G> {
    Own {
        live: Live<DB>,
        home: Arc<Own<DB, G>>,
        since: Instant,
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
        let closing = Arc::new(Semaphore::new(0));
        let own = Own::new(options, greet, most, Arc::clone(&closing));
        Self {
            source: Source::Own(Arc::new(own)),
            patience: patience(time_out),
            closing,
        }
    }

    pub(super) fn of_application(pool: Pool<DB>, time_out: Duration) -> Self {
        Self {
            source: Source::Application(pool),
            patience: patience(time_out),
            closing: Arc::new(Semaphore::new(0)),
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
            Source::Own(home) => Loan::Own {
                live: home.lend().await?,
                home: Arc::clone(home),
                since: Instant::now(),
            },
            Source::Application(pool) => Loan::Application(acquire(pool).await?),
        };
        Ok(Lent { loan: Some(loan) })
    }

    /// Closes the store's own connections, saying goodbye to the server; those on loan are closed when they
    /// come back.
    pub(super) async fn close(&self) {
        self.closing.close();
        if let Source::Own(own) = &self.source {
            own.close().await;
        }
    }

    /// How connections are made now: an application may exchange that of its pool.
    #[cfg(feature = "postgres")]
    pub(super) fn options(&self) -> <DB::Connection as Connection>::Options {
        match &self.source {
            Source::Own(own) => own.options.clone(),
            Source::Application(pool) => (*pool.connect_options()).clone(),
        }
    }

    /// Ends when the store, or the application's pool, is closed.
    #[cfg(feature = "postgres")]
    pub(super) async fn closed(&self) {
        let closing = async {
            let _closed = self.closing.acquire().await;
        };
        match &self.source {
            Source::Own(_) => closing.await,
            Source::Application(pool) => tokio::select! {
                () = closing => {}
                () = pool.close_event() => {}
            },
        }
    }
}

/// One of the application's. If there is room to make one, that goes on also when nobody waits for it any more, and for as
/// long, as with the store's own. Where there is none, the caller itself is in the pool's queue, and leaves it when giving
/// up. The pool may change between this look and the wait: then a task is in the queue that nobody waits for, until its
/// turn or its time has come; or a caller makes the connection, and leaves it half-way.
async fn acquire<DB: Database>(pool: &Pool<DB>) -> Result<PoolConnection<DB>, sqlx::Error> {
    let made = pool.num_idle() == 0 && pool.size() < pool.options().get_max_connections();
    if !made {
        return pool.acquire().await;
    }
    // Dropped unasked for, it goes back to its pool.
    let acquiring = tokio::spawn({
        let pool = pool.clone();
        async move { timeout(CONNECT, pool.acquire()).await }
    });
    match acquiring.await {
        Ok(acquired) => acquired.unwrap_or_else(|elapsed| Err(late(elapsed))),
        // It ended with its runtime.
        Err(_ended) => Err(sqlx::Error::WorkerCrashed),
    }
}

/// How long the client waits for a statement that the server gives up on after `time_out`.
fn patience(time_out: Duration) -> Duration {
    time_out.saturating_mul(2).max(SHORTEST)
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
                Some(Loan::Own { live, home, .. }) => home.keep(live),
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
            // No answer came.
            Some(Loan::Own { home, since, .. }) => home.distrust(since),
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
            Loan::Own { live, .. } => &live.connection,
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
            Loan::Own { live, .. } => &mut live.connection,
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
            closing: Arc::clone(&self.closing),
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
    fn there_is_time_to_connect_however_short_the_time_out() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(Duration::ZERO), seconds(1));
        assert_eq!(patience(Duration::from_millis(50)), seconds(1));
        assert_eq!(patience(seconds(2)), seconds(4));
        assert_eq!(patience(Duration::MAX), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_known_again() {
        let never = std::future::pending::<()>();
        let elapsed = timeout(SHORTEST, never).await.expect_err("late");
        assert!(is_late(&late(elapsed)));
        assert!(!is_late(&sqlx::Error::PoolClosed));
        let gone = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(!is_late(&sqlx::Error::Io(gone)));
    }

    /// Also if that has more patience itself, as it has unless told otherwise.
    #[cfg(feature = "postgres")]
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_takes_up_no_room_of_the_applications_pool_for_long() {
        use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};

        let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(silent.local_addr().expect("a bound port").port())
            .ssl_mode(PgSslMode::Disable)
            .username("somebody");
        let pool = PgPoolOptions::new().connect_lazy_with(options);
        let second = Duration::from_secs(1);
        timeout(second, acquire(&pool))
            .await
            .expect_err("nobody is let in");
        assert_eq!(pool.size(), 1, "it is made to the end, whoever waits");
        tokio::time::sleep(CONNECT).await;
        assert_eq!(pool.size(), 0);
        let began = Instant::now();
        acquire(&pool).await.expect_err("nobody is let in");
        assert!(began.elapsed() < CONNECT + second);
    }
}
