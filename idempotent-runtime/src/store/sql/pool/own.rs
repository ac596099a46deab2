//! The store's own connections: made when they are needed, kept while they are good.
//!
//! 1. **Room.** A connection takes one of `most` places, from the attempt to make it to the end of its farewell.
//! 2. **Making.** Each is made in a task with a limit of its own. Whoever asked for it may give up: it is kept for
//!    who comes next. Left half-way by one caller after the other, a server that lets people in more slowly than
//!    they have patience would never be reached.
//! 3. **Who gets it.** A connection that is ready goes to whoever has waited longest, no matter for whom it was made
//!    or by whom it was returned. An error goes to the one who asked.

use std::{pin::pin, sync::Arc, time::Duration};

use sqlx::{ConnectOptions as _, Connection, Database};
use tokio::{
    runtime::Handle,
    select,
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore, oneshot},
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{CONNECT, Greet, idle::Idle, late};

/// How long to take leave of the server.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) struct Own<DB: Database, G> {
    pub(super) options: <DB::Connection as Connection>::Options,
    greet: G,
    pub(super) most: usize,
    /// The places that are free.
    room: Arc<Semaphore>,
    idle: Idle<Live<DB>>,
    /// Closed when there are to be no connections any more; it has no permits.
    closing: Arc<Semaphore>,
}

/// A connection and its place, which is free when the connection is closed.
pub(super) struct Live<DB: Database> {
    pub(super) connection: DB::Connection,
    _place: OwnedSemaphorePermit,
}

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
            idle: Idle::new(farewell),
            closing,
        }
    }

    /// One that is idle, or the first that is returned or made.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Live<DB>, sqlx::Error> {
        let mut idle = pin!(self.idle.take());
        loop {
            select! {
                biased;
                live = &mut idle => return live.map_err(closed),
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
        select! {
            connected = timeout(CONNECT, connect) => {
                connected.unwrap_or_else(|elapsed| Err(late(elapsed)))
            }
            _ = self.closing.acquire() => Err(sqlx::Error::PoolClosed),
        }
    }
}

impl<DB: Database, G> Own<DB, G> {
    /// Ready for who has waited longest.
    pub(super) fn keep(&self, live: Live<DB>) {
        self.idle.put(live);
    }

    /// A connection that was lent at this moment said nothing. After a failover that nobody announced, those that
    /// have not come back since will say nothing either.
    pub(super) fn distrust(&self, since: Instant) {
        self.idle.part_before(since);
    }

    /// After [`closing`](Self::closing) was closed: says goodbye on those that are idle. Others follow when they
    /// come back.
    pub(super) async fn close(&self) {
        self.room.close();
        let farewells = self.idle.close().into_iter().map(goodbye);
        farewells.collect::<JoinSet<()>>().join_all().await;
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
