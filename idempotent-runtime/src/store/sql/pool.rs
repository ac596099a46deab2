//! Connections to a server: the store's own, or those of the application's pool.
//!
//! The store's own connections are in a pool of `deadpool`: that of sqlx pings the server with every release, a third round
//! trip in what must cost two. A connection is released only if its statement was answered to the end and the session is
//! of use; any other is closed, because the next statement could read the rest of the answer to this one.
//!
//! A statement that is given up, because its future was dropped or no answer came, goes on in the server, and closing the
//! connection does not end it while it waits for a disk or a synchronous standby. So such a connection keeps its place
//! until the server has answered or has closed it, or a grace has passed: otherwise each repetition would open one more,
//! up to the server's limit.
//!
//! No operation waits without a limit. (A migration may: only its locks have one.) The server cancels a statement after
//! the store's time-out; if the server does not answer at all, [`Connections::bounded`] gives up after twice as long. A
//! connection that is being made at that moment goes on being made: see [`own`].

use std::{
    fmt, io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use deadpool::managed::{Object, PoolError};
use sqlx::{Connection as _, Pool, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    time::{Instant, timeout},
};

use self::own::Sessions;
pub(super) use super::error::timed_out;
use super::{error::Repeat, server::ServerDialect, watch::Watch};

mod own;

/// The time-out of making a connection. Without it the operating system's applies: minutes. It is long enough for the
/// dozen round trips of a handshake between continents, or for two lost packets of it: a first packet is sent again
/// after one second, and after two more. Quick servers get as long, because lost packets take the same time on every
/// network.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// The shortest client time-out, whatever the server's is: a connection may have to be made first.
const MIN_TIME_OUT: Duration = Duration::from_secs(1);

/// How long a connection whose statement was given up keeps its place.
const GRACE: Duration = Duration::from_secs(60);

/// Whether this is such an error.
pub(super) fn is_time_out(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() == io::ErrorKind::TimedOut)
}

/// Where connections come from. Clones share them.
pub(super) struct Connections<D: ServerDialect> {
    source: Source<D>,
    /// The client's time-out of a statement.
    time_out: Duration,
    /// Closed by [`close`](Self::close); it has no permits.
    closing: Arc<Semaphore>,
    watch: Arc<Watch>,
}

enum Source<D: ServerDialect> {
    Own(deadpool::managed::Pool<Sessions<D>>),
    Application(Pool<D>),
}

/// A pooled connection. [`Pooled::release`] returns it to its pool; if it is dropped, it is closed once the server has
/// answered, or after the grace.
pub(super) struct Pooled<D: ServerDialect> {
    inner: Option<Inner<D>>,
    since: Instant,
}

enum Inner<D: ServerDialect> {
    Own(Object<Sessions<D>>),
    Application(PoolConnection<D>, Pool<D>, Arc<Watch>),
}

impl<D: ServerDialect> Connections<D> {
    /// Own connections: at most this many, made when they are needed. The server cancels a statement after `time_out`.
    pub(super) fn own(
        options: D::Options,
        max: usize,
        time_out: Duration,
        watch: Arc<Watch>,
    ) -> Self {
        let closing = Arc::new(Semaphore::new(0));
        let own = Sessions::pool(
            options,
            time_out,
            max,
            Arc::clone(&closing),
            Arc::clone(&watch),
        );
        Self {
            source: Source::Own(own),
            time_out: client_time_out(time_out),
            closing,
            watch,
        }
    }

    pub(super) fn of_application(pool: Pool<D>, time_out: Duration, watch: Arc<Watch>) -> Self {
        Self {
            source: Source::Application(pool),
            time_out: client_time_out(time_out),
            closing: Arc::new(Semaphore::new(0)),
            watch,
        }
    }

    /// What is known of the server.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Bounds one statement, from acquiring a connection to releasing it.
    pub(super) async fn bounded<T>(
        &self,
        statement: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        timeout(self.time_out, statement)
            .await
            .unwrap_or_else(|elapsed| Err(timed_out(elapsed)))
    }

    /// The largest number of connections.
    pub(super) fn max(&self) -> usize {
        match &self.source {
            Source::Own(own) => own.manager().max,
            Source::Application(pool) => pool.options().get_max_connections() as usize,
        }
    }

    pub(super) async fn acquire(&self) -> Result<Pooled<D>, sqlx::Error> {
        let inner = match &self.source {
            Source::Own(pool) => Inner::Own(pool.get().await.map_err(|error| match error {
                PoolError::Backend(error) => error,
                PoolError::Closed => sqlx::Error::PoolClosed,
                // The pool has no time-outs and no hooks.
                _ => sqlx::Error::PoolTimedOut,
            })?),
            Source::Application(pool) => {
                let connection = acquire_from_application(pool).await?;
                Inner::Application(connection, pool.clone(), Arc::clone(&self.watch))
            }
        };
        let mut pooled = Pooled {
            inner: Some(inner),
            since: Instant::now(),
        };
        // The store's own sessions were asked when they were made.
        if matches!(self.source, Source::Application(_)) && self.watch.is_due() {
            let recognised = self.watch.recognise::<D>(&mut pooled).await;
            if let Err(error) = recognised {
                self.watch.doubt();
                return pooled.release(Err(error));
            }
        }
        Ok(pooled)
    }

    /// Closes the store's own connections. Those in use are closed when they are released.
    pub(super) async fn close(&self) {
        self.closing.close();
        if let Source::Own(own) = &self.source {
            own.manager().close_idle(own).await;
        }
    }

    /// The current connect options: an application may change those of its pool.
    pub(super) fn options(&self) -> D::Options {
        match &self.source {
            Source::Own(own) => own.manager().options.clone(),
            Source::Application(pool) => (*pool.connect_options()).clone(),
        }
    }

    /// Waits until the store or the application's pool is closed.
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

/// Acquires a connection of the application's pool. If the pool has room to make one, a task makes it, as for the
/// store's own pool, and goes on when the caller gives up. If not, the caller itself waits in the pool's queue, and
/// leaves it when it gives up. The pool may change between the check and the wait: then a task waits in the queue for
/// nobody, until its turn or its time-out; or the caller makes the connection and abandons it half-way.
async fn acquire_from_application<D: ServerDialect>(
    pool: &Pool<D>,
) -> Result<PoolConnection<D>, sqlx::Error> {
    let made = pool.num_idle() == 0 && pool.size() < pool.options().get_max_connections();
    if !made {
        return pool.acquire().await;
    }
    // A connection that nobody waits for is dropped, and goes back to its pool.
    let acquiring = tokio::spawn({
        let pool = pool.clone();
        async move { timeout(CONNECT, pool.acquire()).await }
    });
    match acquiring.await {
        Ok(acquired) => acquired.unwrap_or_else(|elapsed| Err(timed_out(elapsed))),
        // The task ended with its runtime.
        Err(_ended) => Err(sqlx::Error::WorkerCrashed),
    }
}

/// The client's time-out for a statement that the server cancels after `time_out`.
fn client_time_out(time_out: Duration) -> Duration {
    time_out.saturating_mul(2).max(MIN_TIME_OUT)
}

/// What a server calls a session. A server that is started again gives its numbers again.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(
    not(feature = "mysql"),
    expect(dead_code, reason = "PostgreSQL knows a session by its marker")
)]
pub(super) struct SessionId {
    pub(super) number: i64,
    /// When the server was started, in seconds since 1970, by its own clock.
    pub(super) server_started: i64,
}

impl<D: ServerDialect> Pooled<D> {
    /// What the server calls this session, once it was asked.
    pub(super) fn id(&self) -> Option<SessionId> {
        match self.inner.as_ref()? {
            Inner::Own(session) => session.id,
            Inner::Application(..) => None,
        }
    }

    /// Remembers it, in a session of the store's own.
    pub(super) fn set_id(&mut self, id: SessionId) {
        if let Some(Inner::Own(session)) = &mut self.inner {
            session.id = Some(id);
        }
    }

    /// Closes the connection, whose session was changed.
    pub(super) fn close(mut self) {
        match self.inner.take() {
            Some(Inner::Own(session)) => drop(Object::take(session)),
            Some(Inner::Application(mut connection, ..)) => connection.close_on_drop(),
            None => {}
        }
    }

    /// Closes the connection, which is broken, and uses no older one of its pool again.
    pub(super) fn invalidate(mut self) {
        match self.inner.take() {
            Some(Inner::Own(session)) => {
                own::invalidate_before(&session, self.since);
                drop(Object::take(session));
            }
            Some(Inner::Application(mut connection, pool, watch)) => {
                connection.close_on_drop();
                watch.doubt();
                evict_untested(&pool);
            }
            None => {}
        }
    }

    /// Releases the connection if the server has answered to the end and the session is of use; else closes it.
    ///
    /// A connection that broke leaves no older one in its pool: after a restart of the server they are broken too, and an
    /// acquire may be repeated once only.
    pub(super) fn release<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        let reusable = match &result {
            Ok(_) => true,
            Err(error @ sqlx::Error::Database(_)) => !D::is_ended_by(error),
            Err(error) => matches!(
                error,
                sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. }
            ),
        };
        let lost = matches!(&result, Err(error) if D::classify(error).repeat == Repeat::Lost);
        match self.inner.take() {
            Some(Inner::Own(mut session)) if reusable => {
                session.released = Instant::now();
                own::evict_aged(session);
            }
            Some(Inner::Own(session)) => {
                if lost {
                    own::invalidate_before(&session, self.since);
                }
                drop(Object::take(session));
            }
            Some(Inner::Application(mut connection, pool, watch)) if !reusable => {
                connection.close_on_drop();
                watch.doubt();
                if lost {
                    evict_untested(&pool);
                }
            }
            // Dropping it returns it to the application's pool.
            inner => drop(inner),
        }
        result
    }
}

/// Closes the idle connections of an application's pool that does not test them by itself.
fn evict_untested<D: ServerDialect>(pool: &Pool<D>) {
    if pool.options().get_test_before_acquire() {
        return;
    }
    for _ in 0..pool.num_idle() {
        match pool.try_acquire() {
            Some(mut idle) => idle.close_on_drop(),
            None => return,
        }
    }
}

impl<D: ServerDialect> Drop for Pooled<D> {
    /// The statement was not answered. After an unannounced failover, the idle connections that were released earlier
    /// would get no answer either.
    fn drop(&mut self) {
        let Some(mut inner) = self.inner.take() else {
            return;
        };
        match &mut inner {
            Inner::Own(session) => own::invalidate_before(session, self.since),
            Inner::Application(connection, _, watch) => {
                connection.close_on_drop();
                watch.doubt();
            }
        }
        // It may be dropped after its runtime has ended.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(settle(inner));
        } else if let Inner::Own(session) = inner {
            drop(Object::take(session));
        }
    }
}

/// Waits until the server has answered what was given up, or has closed the connection, and closes it.
async fn settle<D: ServerDialect>(inner: Inner<D>) {
    match inner {
        Inner::Own(mut session) => {
            if let Some(connection) = &mut session.connection {
                // The answer to the ping comes after that to the statement.
                let _answered = timeout(GRACE, connection.ping()).await;
            }
            drop(Object::take(session));
        }
        Inner::Application(mut connection, ..) => {
            let _answered = timeout(GRACE, connection.ping()).await;
        }
    }
}

impl<D: ServerDialect> Deref for Pooled<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        match self.inner.as_ref().expect(HELD) {
            Inner::Own(session) => session.connection.as_ref().expect(HELD),
            Inner::Application(connection, ..) => connection,
        }
    }
}

impl<D: ServerDialect> DerefMut for Pooled<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        match self.inner.as_mut().expect(HELD) {
            Inner::Own(session) => session.connection.as_mut().expect(HELD),
            Inner::Application(connection, ..) => connection,
        }
    }
}

/// Why a connection is there.
const HELD: &str = "the connection is there until `release` or the drop, which consume it";

impl<D: ServerDialect> Clone for Connections<D> {
    fn clone(&self) -> Self {
        let source = match &self.source {
            Source::Own(own) => Source::Own(own.clone()),
            Source::Application(pool) => Source::Application(pool.clone()),
        };
        Self {
            source,
            time_out: self.time_out,
            closing: Arc::clone(&self.closing),
            watch: Arc::clone(&self.watch),
        }
    }
}

impl<D: ServerDialect> fmt::Debug for Connections<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Own(own) => write!(f, "at most {} of its own", own.manager().max),
            Source::Application(_) => f.write_str("the application's pool"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_client_time_out_leaves_time_to_connect() {
        let seconds = Duration::from_secs;
        assert_eq!(client_time_out(Duration::ZERO), seconds(1));
        assert_eq!(client_time_out(Duration::from_millis(50)), seconds(1));
        assert_eq!(client_time_out(seconds(2)), seconds(4));
        assert_eq!(client_time_out(Duration::MAX), Duration::MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_out_is_recognised() {
        let never = std::future::pending::<()>();
        let elapsed = timeout(MIN_TIME_OUT, never).await.expect_err("late");
        assert!(is_time_out(&timed_out(elapsed)));
        assert!(!is_time_out(&sqlx::Error::PoolClosed));
        let gone = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(!is_time_out(&sqlx::Error::Io(gone)));
    }

    /// Also if that pool's own time-out is longer, as it is by default.
    #[cfg(feature = "postgres")]
    #[tokio::test(start_paused = true)]
    async fn an_unresponsive_server_occupies_no_place_of_the_applications_pool_for_long() {
        use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};

        let unresponsive = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(unresponsive.local_addr().expect("a bound port").port())
            .ssl_mode(PgSslMode::Disable)
            .username("user");
        let pool = PgPoolOptions::new().connect_lazy_with(options);
        let second = Duration::from_secs(1);
        timeout(second, acquire_from_application(&pool))
            .await
            .expect_err("the server does not answer");
        assert_eq!(pool.size(), 1, "the connection goes on being made");
        tokio::time::sleep(CONNECT).await;
        assert_eq!(pool.size(), 0);
        let began = Instant::now();
        acquire_from_application(&pool)
            .await
            .expect_err("the server does not answer");
        assert!(began.elapsed() < CONNECT + second);
    }
}
