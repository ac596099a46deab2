//! LISTEN and NOTIFY: telling the other processes that a record changed.
//!
//! Two tasks, begun when an engine attaches itself: one listens on a connection of its own, the other sends. They end
//! when the store is closed or the application's pool. Only what wakes waiters early goes this way. A notification
//! that is lost, because the connection is down or too many are waiting to be sent, costs those who wait the rest of
//! their polling interval.
//!
//! PostgreSQL commits the transactions that notify one at a time. So completions do not notify; their keys gather
//! here, and go out many in one transaction.

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

use super::records::Session;
use crate::{
    scope::StoreKey,
    store::{
        sql::{
            TableName,
            pool::{CONNECT, Connections, late},
        },
        wake::Wake,
    },
};

/// Keys that wait to be sent; further ones are dropped.
const QUEUE: usize = 1024;
/// Keys of one transaction.
const BATCH: usize = 256;
/// How often a connection on which nothing happens is asked whether it is still there, and how long it may take to
/// say so.
const PING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));
/// How long to wait before listening again: from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// The same after a server that let us in and then said nothing. Each such attempt leaves a connection behind, and a task
/// of sqlx that takes leave on it until the operating system gives it up.
const SILENT: Duration = Duration::from_secs(60);

const NOTIFY: &str = include_str!("notify.sql");

/// Rings in all processes when a record changes, and wakes this one's waiters when another one rang.
pub(super) struct Bell {
    channel: String,
    connections: Connections<Postgres, Session>,
    ring: mpsc::Sender<StoreKey>,
    state: Mutex<State>,
    wakes: Arc<Mutex<Vec<Wake>>>,
}

struct State {
    /// Until the tasks have begun.
    keys: Option<mpsc::Receiver<StoreKey>>,
    tasks: Vec<AbortHandle>,
}

impl Bell {
    pub(super) fn new(connections: Connections<Postgres, Session>, table: &TableName) -> Self {
        let (ring, keys) = mpsc::channel(QUEUE);
        let state = Mutex::new(State {
            keys: Some(keys),
            tasks: Vec::new(),
        });
        Self {
            channel: channel(table),
            connections,
            ring,
            state,
            wakes: Arc::default(),
        }
    }

    /// The record under this key changed.
    pub(super) fn ring(&self, key: &StoreKey) {
        // Full, or not begun: who waits will poll.
        let _ = self.ring.try_send(*key);
    }

    /// Wakes an engine's waiters from now on.
    pub(super) fn attach(&self, wake: Wake) {
        locked(&self.wakes).push(wake);
        let mut state = locked(&self.state);
        let Ok(runtime) = Handle::try_current() else {
            tracing::warn!(
                "built outside of a tokio runtime, so that waiters poll and are not notified"
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

impl Drop for Bell {
    fn drop(&mut self) {
        for task in &locked(&self.state).tasks {
            task.abort();
        }
    }
}

/// Ends with the connections, wherever the task is.
async fn until_closed(connections: Connections<Postgres, Session>, task: impl Future<Output = ()>) {
    select! {
        biased;
        () = connections.closed() => {}
        () = task => {}
    }
}

async fn send(
    connections: Connections<Postgres, Session>,
    channel: String,
    mut rung: mpsc::Receiver<StoreKey>,
) {
    let mut keys = Vec::with_capacity(BATCH);
    while rung.recv_many(&mut keys, BATCH).await > 0 {
        let payloads: Vec<String> = keys.drain(..).map(|key| hex(key.as_bytes())).collect();
        let sent = async {
            let mut connection = connections.lend().await?;
            let sent = sqlx::query(NOTIFY)
                .bind(&channel)
                .bind(payloads)
                .execute(&mut *connection)
                .await;
            connection.settle(sent)
        };
        if let Err(error) = connections.bounded(sent).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "waiters were not notified"
            );
        }
    }
}

async fn listen(
    connections: Connections<Postgres, Session>,
    channel: String,
    wakes: Arc<Mutex<Vec<Wake>>>,
) {
    let mut pause = PAUSE.0;
    loop {
        // Asked each time: passwords rotate.
        let listening = listener(connections.options(), &channel);
        let error = match timeout(CONNECT * 2, listening).await {
            Ok(Ok(mut listener)) => {
                // What was rung before is known to nobody here.
                locked(&wakes).iter().for_each(Wake::all);
                loop {
                    match heard(&mut listener).await {
                        Ok(rung) => {
                            pause = PAUSE.0;
                            if let Some(rung) = rung {
                                wake(&wakes, &rung);
                            }
                        }
                        Err(error) => break error,
                    }
                }
            }
            Ok(Err(error)) => error,
            Err(elapsed) => {
                pause = SILENT;
                late(elapsed)
            }
        };
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "listening again after a pause"
        );
        sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// The next notification, or nothing for a while from a server that is still there. One that vanished without a word is
/// noticed by nothing else than its silence.
async fn heard(listener: &mut PgListener) -> Result<Option<PgNotification>, sqlx::Error> {
    // sqlx reads whole messages or nothing, so that a wait that ends leaves none half-read.
    if let Ok(received) = timeout(PING.0, listener.try_recv()).await {
        let lost = || sqlx::Error::Io(io::ErrorKind::ConnectionReset.into());
        return received?.ok_or_else(lost).map(Some);
    }
    let ping = sqlx::query("select").execute(&mut *listener);
    timeout(PING.1, ping)
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))?;
    Ok(None)
}

/// A listener that listens. It waits for a server that lets us in and then says nothing, for as long as that is.
async fn listener(options: PgConnectOptions, channel: &str) -> Result<PgListener, sqlx::Error> {
    // A listener comes out of a pool only. Out of a new one each time: the one before may be held for long by the
    // farewell of a listener to a server that is gone.
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(CONNECT)
        .connect_lazy_with(options);
    let mut listener = PgListener::connect_with(&pool).await?;
    // A connection that is lost ends this listener. Made anew by it, that could remain unknown here, together with the
    // notifications in between.
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

fn wake(wakes: &Mutex<Vec<Wake>>, rung: &PgNotification) {
    if let Some(key) = unhex(rung.payload()) {
        locked(wakes).iter().for_each(|wake| wake.key(&key));
    }
}

/// The channel of a table. Its name would be too long, and two tables of one name in two schemas wake each other at
/// no harm.
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

/// The key of a payload; none for what this crate did not send.
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

/// What the locks guard is whole at any moment.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
