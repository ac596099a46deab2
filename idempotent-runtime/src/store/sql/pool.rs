//! Connections to a server: the store's own, or those of the application's pool.
//!
//! The store's own are kept here rather than in a pool of sqlx, which asks the server with every return of a
//! connection whether it is still there: a third round trip in what must cost two. Here a connection goes back
//! only if its statement was answered to the end. Any other, because its future was dropped or its answer
//! never came, is closed: nobody can be given the rest of somebody else's answer.

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection, Database, Pool, pool::PoolConnection};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{error::Elapsed, timeout},
};

/// How long a server has to let somebody in. Without a limit it is the operating system's: minutes.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

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
    /// The last one returned is the first one lent: it is the likeliest to be alive.
    idle: Mutex<Vec<DB::Connection>>,
}

/// A connection on loan. It goes back by [`Lent::settle`] and is closed if it is dropped before.
pub(super) struct Lent<DB: Database, G> {
    loan: Option<Loan<DB, G>>,
}

enum Loan<DB: Database, G> {
    Own {
        connection: DB::Connection,
        home: Arc<Own<DB, G>>,
        /// Given back after the connection, so that who waits for it finds one.
        _permit: OwnedSemaphorePermit,
    },
    Application(PoolConnection<DB>),
}

impl<DB: Database, G: Greet<DB>> Connections<DB, G> {
    /// At most this many connections, made when they are needed.
    pub(super) fn own(
        options: <DB::Connection as Connection>::Options,
        greet: G,
        most: usize,
    ) -> Self {
        let most = most.max(1);
        let room = Arc::new(Semaphore::new(most));
        let idle = Mutex::default();
        Self {
            source: Source::Own(Arc::new(Own {
                options,
                greet,
                most,
                room,
                idle,
            })),
        }
    }

    pub(super) fn of_application(pool: Pool<DB>) -> Self {
        Self {
            source: Source::Application(pool),
        }
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
                let idle = home.idle().pop();
                let connection = match idle {
                    Some(connection) => connection,
                    None => home.connect().await?,
                };
                Loan::Own {
                    connection,
                    home: Arc::clone(home),
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
            let idle = std::mem::take(&mut *own.idle());
            for connection in idle {
                // A server that is gone needs no goodbye.
                let _ = connection.close().await;
            }
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
    /// The list is whole after every push and pop, so a panic elsewhere does not matter to it.
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<DB::Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
                }) if !home.room.is_closed() => {
                    home.idle().push(connection);
                }
                // The application's pool takes it back by its drop.
                loan => drop(loan),
            }
        }
        result
    }
}

impl<DB: Database, G> Drop for Lent<DB, G> {
    fn drop(&mut self) {
        if let Some(Loan::Application(mut connection)) = self.loan.take() {
            connection.close_on_drop();
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
        Self { source }
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
