//! The store's own pool: connections are made when they are needed and kept while they work.
//!
//! 1. **Capacity.** A connection takes one of `max` permits, from the attempt to make it until it is closed.
//! 2. **Making.** Each connection is made in a task with its own time-out. If its caller gives up, the connection is
//!    kept for the next one: otherwise a server slower to connect than its callers' time-outs would never be reached.
//! 3. **Order.** A ready connection goes to the caller that has waited longest, also if it was made for another one. An
//!    error goes to the caller that asked for the connection.

use std::{pin::pin, sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, Connection, Database};
use tokio::{
    runtime::Handle,
    select,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{CONNECT, SessionSetup, idle::Idle, timed_out};

/// The time-out of closing a connection.
const CLOSE: Duration = Duration::from_secs(1);

pub(super) struct OwnPool<DB: Database, G> {
    pub(super) options: <DB::Connection as Connection>::Options,
    set_up: G,
    pub(super) max: usize,
    /// The permits of connections that are not open.
    capacity: Arc<Semaphore>,
    idle: Idle<Connected<DB>>,
    /// Closed when the pool is closed; it has no permits.
    closing: Arc<Semaphore>,
}

/// A connection and its permit, which is returned when the connection is closed.
pub(super) struct Connected<DB: Database> {
    pub(super) connection: DB::Connection,
    _permit: OwnedSemaphorePermit,
}

impl<DB: Database, G: SessionSetup<DB>> OwnPool<DB, G> {
    pub(super) fn new(
        options: <DB::Connection as Connection>::Options,
        set_up: G,
        max: usize,
        closing: Arc<Semaphore>,
    ) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            options,
            set_up,
            max,
            capacity: Arc::new(Semaphore::new(max)),
            idle: Idle::new(close_in_background),
            closing,
        }
    }

    /// An idle connection, or the first that is released or made.
    pub(super) async fn acquire(self: &Arc<Self>) -> Result<Connected<DB>, sqlx::Error> {
        let mut idle = pin!(self.idle.acquire());
        loop {
            select! {
                biased;
                live = &mut idle => return live.map_err(closed),
                // The new connection may go to a caller that has waited longer: then one more is needed.
                made = self.make() => made?,
            }
        }
    }

    /// Makes another connection as soon as there is capacity. It goes on being made if the caller gives up.
    async fn make(self: &Arc<Self>) -> Result<(), sqlx::Error> {
        let permit = Arc::clone(&self.capacity).acquire_owned().await;
        let permit = permit.map_err(closed)?;
        let (sender, result) = oneshot::channel();
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            let made = pool.connect().await;
            let made = made.map(|connection| {
                pool.release(Connected {
                    connection,
                    _permit: permit,
                });
            });
            if let Err(Err(error)) = sender.send(made) {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a connection whose caller had given up could not be made"
                );
            }
        });
        // Without a result the task ended with its runtime.
        result.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    async fn connect(&self) -> Result<DB::Connection, sqlx::Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            self.set_up.set_up(&mut connection).await?;
            Ok(connection)
        };
        select! {
            connected = timeout(CONNECT, connect) => {
                connected.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
            }
            _ = self.closing.acquire() => Err(sqlx::Error::PoolClosed),
        }
    }
}

impl<DB: Database, G> OwnPool<DB, G> {
    /// Returns a connection for the caller that has waited longest.
    pub(super) fn release(&self, live: Connected<DB>) {
        self.idle.release(live);
    }

    /// A connection acquired at this moment got no answer. After an unannounced failover, the idle connections that
    /// were released earlier would get none either.
    pub(super) fn invalidate_before(&self, since: Instant) {
        self.idle.invalidate_before(since);
    }

    /// Closes the idle connections, after [`closing`](Self::closing) was closed. The others are closed when they are
    /// released.
    pub(super) async fn close(&self) {
        self.capacity.close();
        let closing = self.idle.close().into_iter().map(close_connection);
        closing.collect::<JoinSet<()>>().join_all().await;
    }
}

fn closed(_: AcquireError) -> sqlx::Error {
    sqlx::Error::PoolClosed
}

/// Closes these connections in tasks of their own: no statement waits for it.
fn close_in_background<DB: Database>(connections: Vec<Connected<DB>>) {
    // A pooled connection may be dropped after its runtime has ended.
    if let Ok(runtime) = Handle::try_current() {
        for live in connections {
            runtime.spawn(close_connection(live));
        }
    }
}

/// Closes a connection in the server's protocol, so that the server does not log an abort. An error is ignored: the
/// server is gone.
async fn close_connection<DB: Database>(live: Connected<DB>) {
    let Connected {
        connection,
        _permit,
    } = live;
    let _gone = timeout(CLOSE, connection.close()).await;
}
