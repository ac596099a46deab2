//! LISTEN and NOTIFY: waking waiters in other processes when a record changes.
//!
//! Two tasks, started when the first engine is attached: one listens on a connection of its own, the other sends. They
//! end when the store or the application's pool is closed. Only latency depends on them: if a notification is lost,
//! because the connection is down or the queue is full, the waiters find the change at their next poll.
//!
//! PostgreSQL commits transactions that notify one at a time. So completions do not notify themselves: their keys are
//! queued here and sent many in one transaction.

use std::{
    fmt::Write as _,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use sqlx::{
    Postgres,
    postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions},
};
use tokio::{
    runtime::Handle,
    select,
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    scope::StoreKey,
    store::{
        sql::{
            TableName,
            pool::{CONNECT, Connections, timed_out},
        },
        wake::Wake,
    },
};

/// The length of the queue of keys to send; further keys are dropped.
const QUEUE: usize = 1024;
/// The largest number of keys in one transaction.
const BATCH: usize = 256;
/// How often an idle connection is pinged, and the time-out of a ping.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));
/// The first and the longest pause before listening again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// The pause after a server that accepted the connection and then stopped answering. Each such attempt leaves a
/// connection behind, and a task of sqlx that tries to close it until the operating system gives up on it.
const UNRESPONSIVE: Duration = Duration::from_secs(60);

const NOTIFY: &str = include_str!("notify.sql");

/// Notifies all processes when a record changes, and wakes this process's waiters when another one notifies.
pub(in crate::store::sql) struct Notifier {
    channel: String,
    connections: Connections<Postgres>,
    queue: mpsc::Sender<StoreKey>,
    state: Mutex<State>,
    wakes: Arc<Mutex<Vec<Wake>>>,
}

struct State {
    /// The receiving end of the queue, until the tasks have started.
    keys: Option<mpsc::Receiver<StoreKey>>,
    tasks: Vec<AbortHandle>,
}

impl Notifier {
    pub(super) fn new(connections: Connections<Postgres>, table: &TableName) -> Self {
        let (queue, keys) = mpsc::channel(QUEUE);
        let state = Mutex::new(State {
            keys: Some(keys),
            tasks: Vec::new(),
        });
        Self {
            channel: channel(table),
            connections,
            queue,
            state,
            wakes: Arc::default(),
        }
    }

    /// Queues a notification that the record under this key changed.
    pub(super) fn notify(&self, key: &StoreKey) {
        // It fails if the queue is full: then the waiters poll.
        let _ = self.queue.try_send(*key);
    }

    /// Wakes an engine's waiters from now on.
    pub(super) fn attach(&self, wake: Wake) {
        {
            let mut wakes = locked(&self.wakes);
            wakes.retain(|wake| !wake.is_closed());
            wakes.push(wake);
        }
        let mut state = locked(&self.state);
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!(
                "the engine was built outside of a tokio runtime: waiters poll and are not notified"
            );
            return;
        };
        if let Some(keys) = state.keys.take() {
            let (connections, channel) = (&self.connections, &self.channel);
            let send = send(connections.clone(), channel.clone(), keys);
            let listen = listen(
                connections.clone(),
                channel.clone(),
                Arc::clone(&self.wakes),
            );
            state.tasks = vec![
                runtime
                    .spawn(until_closed(connections.clone(), send))
                    .abort_handle(),
                runtime
                    .spawn(until_closed(connections.clone(), listen))
                    .abort_handle(),
            ];
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        for task in &locked(&self.state).tasks {
            task.abort();
        }
    }
}

/// Runs the task until the connections are closed.
async fn until_closed(connections: Connections<Postgres>, task: impl Future<Output = ()>) {
    select! {
        biased;
        () = connections.closed() => {}
        () = task => {}
    }
}

async fn send(
    connections: Connections<Postgres>,
    channel: String,
    mut queue: mpsc::Receiver<StoreKey>,
) {
    let mut keys = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut keys, BATCH).await > 0 {
        let payloads: Vec<String> = keys.drain(..).map(|key| hex(key.as_bytes())).collect();
        let sent = async {
            let mut connection = connections.acquire().await?;
            let sent = sqlx::query(NOTIFY)
                .bind(&channel)
                .bind(payloads)
                .execute(&mut *connection)
                .await;
            connection.release(sent)
        };
        if let Err(error) = connections.bounded(sent).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "waiters in other processes were not notified: they poll"
            );
        }
    }
}

async fn listen(connections: Connections<Postgres>, channel: String, wakes: Arc<Mutex<Vec<Wake>>>) {
    let mut pause = PAUSE.0;
    loop {
        // The options are read each time: passwords rotate.
        let listening = connect(connections.options(), &channel);
        let error = match timeout(CONNECT * 2, listening).await {
            Ok(Ok(mut listener)) => {
                // Earlier notifications were missed.
                locked(&wakes).iter().for_each(Wake::all);
                loop {
                    match next_notification(&mut listener).await {
                        Ok(notification) => {
                            pause = PAUSE.0;
                            if let Some(notification) = notification {
                                wake(&wakes, &notification);
                            }
                        }
                        Err(error) => break error,
                    }
                }
            }
            Ok(Err(error)) => error,
            Err(elapsed) => {
                pause = UNRESPONSIVE;
                timed_out(elapsed)
            }
        };
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "the connection that listens was lost and is made again after a pause"
        );
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// The next notification, or `None` after a while without one from a server that answers a ping. Only the ping detects
/// a server that vanished without closing the connection.
async fn next_notification(
    listener: &mut PgListener,
) -> Result<Option<PgNotification>, sqlx::Error> {
    // sqlx reads whole messages or nothing, so that a cancelled wait leaves none half read.
    if let Ok(received) = timeout(PING.0, listener.try_recv()).await {
        let lost = || sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
        return received?.ok_or_else(lost).map(Some);
    }
    let ping = sqlx::query("select").execute(&mut *listener);
    timeout(PING.1, ping)
        .await
        .unwrap_or_else(|elapsed| Err(timed_out(elapsed)))?;
    Ok(None)
}

/// Connects a listener. It has no time-out of its own for a server that accepts the connection and stops answering.
async fn connect(options: PgConnectOptions, channel: &str) -> Result<PgListener, sqlx::Error> {
    // sqlx makes a listener only from a pool. The pool is a new one each time, because the connection of the previous
    // listener may occupy its pool for long, while it is being closed to a server that is gone.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    // A lost connection must end this listener. If it reconnected by itself, the notifications missed meanwhile would
    // remain unknown here.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

fn wake(wakes: &Mutex<Vec<Wake>>, notification: &PgNotification) {
    if let Some(key) = unhex(notification.payload()) {
        locked(wakes).iter().for_each(|wake| wake.key(&key));
    }
}

/// The channel of a table: a digest of its name, which itself may be too long. Tables of one name that the search path
/// leads to in two schemas share a channel, which does no harm.
fn channel(table: &TableName) -> String {
    let digest = Sha256::digest(table.to_string());
    format!("idempotent_{}", hex(&digest[..8]))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// The key in a payload; `None` for a payload that this crate did not send.
fn unhex(payload: &str) -> Option<StoreKey> {
    let mut bytes = [0; 32];
    if payload.len() != 64 {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(payload.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(StoreKey::from_bytes(bytes))
}

/// The guarded values are consistent whenever the lock is free, so a poisoned lock is as good.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
