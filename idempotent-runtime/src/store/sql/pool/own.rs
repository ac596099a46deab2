//! The store's own sessions: how one is made, and when one is not used again.
//!
//! A connection belongs to no caller while it is being made: if its caller gives up, the next one gets it. Otherwise a
//! server slower to connect than its callers' time-outs would never be reached, and each attempt would leave a connection
//! behind.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolConfig, QueueMode, RecycleError, RecycleResult,
};
use sqlx::{ConnectOptions as _, Connection};
use tokio::{
    runtime::Handle,
    select,
    sync::Semaphore,
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, timeout},
};

use super::{CONNECT, SessionId, timed_out};
use crate::store::sql::{server::ServerDialect, watch::Watch};

/// How long a connection may be idle. Middleboxes between client and server drop idle connections silently, many after
/// some minutes; a new connection costs less than finding that out with a request.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// How long closing a connection may take: the server may not answer.
const CLOSE: Duration = Duration::from_secs(1);

/// Makes sessions, for their pool.
pub(super) struct Sessions<D: ServerDialect> {
    pub(super) options: D::Options,
    time_out: Duration,
    pub(super) max: usize,
    /// Sessions that are being made, or were made, for a caller that has given up.
    unclaimed: Unclaimed<D>,
    home: Home,
    watch: Arc<Watch>,
    /// Sessions released before this moment are not used again.
    valid_since: Mutex<Option<Instant>>,
    /// Closed when the pool is closed; it has no permits.
    closing: Arc<Semaphore>,
}

/// The task that makes a session, and when it began.
struct Attempt<D: ServerDialect> {
    task: JoinHandle<Result<Session<D>, sqlx::Error>>,
    began: Instant,
}

type Unclaimed<D> = Arc<Mutex<Vec<Attempt<D>>>>;

/// The runtime on which the store was opened, which makes its sessions as long as it lives: a session ends with the runtime
/// that made it, and its traffic waits while that one is blocked, as each worker of actix may be.
#[derive(Default)]
struct Home {
    runtime: Option<Handle>,
    ended: AtomicBool,
}

/// One session. Dropping it closes it.
pub(super) struct Session<D: ServerDialect> {
    /// There until it is dropped.
    pub(super) connection: Option<D::Connection>,
    pub(super) released: Instant,
    /// What the server calls it, once it was asked.
    pub(super) id: Option<SessionId>,
}

/// Hands the attempt to the next caller when this one gives up.
struct Making<D: ServerDialect> {
    attempt: Option<Attempt<D>>,
    unclaimed: Unclaimed<D>,
}

impl<D: ServerDialect> Sessions<D> {
    pub(super) fn pool(
        options: D::Options,
        time_out: Duration,
        max: usize,
        closing: Arc<Semaphore>,
        watch: Arc<Watch>,
    ) -> Pool<Self> {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        let sessions = Self {
            options,
            time_out,
            max,
            unclaimed: Arc::default(),
            home: Home::here(),
            watch,
            valid_since: Mutex::default(),
            closing,
        };
        let mut config = PoolConfig::new(max);
        // The last one released is the likeliest to work.
        config.queue_mode = QueueMode::Lifo;
        let pool = Pool::builder(sessions).config(config).build();
        pool.expect("it has no time-outs, which alone would need a runtime")
    }

    fn is_fresh(&self, session: &Session<D>) -> bool {
        let valid = locked(&self.valid_since).is_none_or(|since| session.released >= since);
        valid && !session.is_aged()
    }

    /// Starts to make a session.
    fn attempt(&self) -> Attempt<D> {
        let (options, time_out) = (self.options.clone(), self.time_out);
        let (closing, watch) = (Arc::clone(&self.closing), Arc::clone(&self.watch));
        let began = Instant::now();
        let task = self.home.spawn(async move {
            let connect = async {
                let mut connection = options.connect().await?;
                D::set_up(&mut connection, time_out).await?;
                watch.recognise::<D>(&mut connection).await?;
                Ok(connection)
            };
            let connected = select! {
                connected = timeout(CONNECT, connect) => {
                    connected.unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
                }
                _ = closing.acquire() => Err(sqlx::Error::PoolClosed),
            };
            connected.map(|connection| Session {
                connection: Some(connection),
                released: Instant::now(),
                id: None,
            })
        });
        Attempt { task, began }
    }

    /// Drops the sessions that nobody claimed in time.
    fn evict_unclaimed(&self) {
        locked(&self.unclaimed).retain(|attempt| attempt.began.elapsed() < CONNECT + MAX_IDLE);
    }

    /// Closes the pool and its idle connections. The others are closed when they are released.
    pub(super) async fn close_idle(&self, pool: &Pool<Self>) {
        let idle = pool.retain(|_, _| false).removed;
        pool.close();
        let closing = idle
            .into_iter()
            .filter_map(|mut session| session.connection.take())
            .map(close);
        closing.collect::<JoinSet<()>>().join_all().await;
        locked(&self.unclaimed).clear();
    }
}

impl<D: ServerDialect> Manager for Sessions<D> {
    type Type = Session<D>;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Session<D>, sqlx::Error> {
        loop {
            let unclaimed = locked(&self.unclaimed).pop();
            let adopted = unclaimed.is_some();
            let mut making = Making {
                attempt: Some(unclaimed.unwrap_or_else(|| self.attempt())),
                unclaimed: Arc::clone(&self.unclaimed),
            };
            let made = making.end().await;
            match made {
                Ok(Ok(session)) if self.is_fresh(&session) => return Ok(session),
                // It may have failed, or been made, long ago.
                _ if adopted => {}
                Err(ended) if ended.is_cancelled() && self.home.leave() => {}
                Err(_) => return Err(sqlx::Error::WorkerCrashed),
                Ok(made) => return made,
            }
        }
    }

    async fn recycle(&self, session: &mut Session<D>, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if self.is_fresh(session) {
            Ok(())
        } else {
            Err(RecycleError::message(
                "the connection was idle for too long or is broken",
            ))
        }
    }
}

impl<D: ServerDialect> Making<D> {
    /// An error if the task ended with its runtime.
    async fn end(&mut self) -> Result<Result<Session<D>, sqlx::Error>, JoinError> {
        let attempt = self.attempt.as_mut().expect("there until its end");
        let made = (&mut attempt.task).await;
        self.attempt = None;
        made
    }
}

impl Home {
    fn here() -> Self {
        Self {
            runtime: Handle::try_current().ok(),
            ended: AtomicBool::new(false),
        }
    }

    /// Runs a task, on the caller's runtime if this one has ended.
    fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.runtime {
            Some(runtime) if !self.ended.load(Ordering::Relaxed) => runtime.spawn(task),
            _ => tokio::spawn(task),
        }
    }

    /// A task was cancelled, as all are by a runtime that ends. `false` if that one was left before.
    fn leave(&self) -> bool {
        self.runtime.is_some() && !self.ended.swap(true, Ordering::Relaxed)
    }
}

impl<D: ServerDialect> Drop for Making<D> {
    fn drop(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            locked(&self.unclaimed).push(attempt);
        }
    }
}

impl<D: ServerDialect> Session<D> {
    fn is_aged(&self) -> bool {
        self.released.elapsed() >= MAX_IDLE
    }
}

impl<D: ServerDialect> Drop for Session<D> {
    fn drop(&mut self) {
        // It may be dropped after its runtime has ended.
        if let (Some(connection), Ok(runtime)) = (self.connection.take(), Handle::try_current()) {
            runtime.spawn(close(connection));
        }
    }
}

/// Returns a session to its pool, and closes those that have been idle there for too long.
pub(super) fn evict_aged<D: ServerDialect>(session: Object<Sessions<D>>) {
    let pool = Object::pool(&session);
    drop(session);
    if let Some(pool) = pool {
        drop(pool.retain(|session, _| !session.is_aged()));
        pool.manager().evict_unclaimed();
    }
}

/// A session that was acquired at this moment got no answer: the older ones are not used again.
pub(super) fn invalidate_before<D: ServerDialect>(session: &Object<Sessions<D>>, moment: Instant) {
    if let Some(pool) = Object::pool(session) {
        let mut valid_since = locked(&pool.manager().valid_since);
        *valid_since = (*valid_since).max(Some(moment));
    }
}

/// Closes a connection in the server's protocol, so that the server does not log an abort. An error is ignored: the
/// server is gone.
async fn close(connection: impl Connection) {
    let _gone = timeout(CLOSE, connection.close()).await;
}

/// The guarded values are consistent whenever the lock is free, so a poisoned lock is as good.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
