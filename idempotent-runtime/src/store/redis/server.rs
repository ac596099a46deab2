//! The connection to a server that all operations share: multiplexed, and made again when it breaks.
//!
//! 1. One connection carries all operations. An operation that finds it broken invalidates it, and the next one starts
//!    a single attempt to connect, for all.
//! 2. An attempt belongs to no operation: it goes on when the operation that started it is dropped. All operations that
//!    wait for it share its failure, so that none waits for more than one attempt.
//! 3. A reply that does not come in time breaks the connection too: only that detects a peer that vanished without
//!    closing the connection.
//!
//! The connection manager of the `redis` crate neither follows sentinels nor replaces an unresponsive connection.

use std::sync::Arc;

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::{runtime::Handle, sync::watch};

use super::{
    error::{READONLY, code},
    script::{Call, no_script},
    source::Source,
};

/// The one connection to the primary, or to a node of a Cluster.
pub(super) struct Server {
    source: Arc<Source>,
    live: watch::Sender<Live>,
    runtime: Handle,
}

enum Live {
    /// `number` distinguishes this connection from earlier ones.
    Up {
        number: u64,
        connection: MultiplexedConnection,
    },
    /// An attempt is running, for the connection of this number.
    Connecting { number: u64 },
    /// There was no attempt yet, the last one failed, or its connection broke.
    Down {
        number: u64,
        error: Option<RedisError>,
    },
}

impl Server {
    /// Its attempts to connect run on this runtime, whichever runtime the operations run on.
    pub(super) fn new(source: Arc<Source>, runtime: Handle) -> Arc<Self> {
        let down = Live::Down {
            number: 0,
            error: None,
        };
        Arc::new(Self {
            source,
            live: watch::Sender::new(down),
            runtime,
        })
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// Calls a script, by text if the server does not know its hash. `asking` is for a node of a Cluster to which the
    /// record's slot is being moved.
    pub(super) async fn call(
        self: &Arc<Self>,
        call: &Call<'_>,
        asking: bool,
    ) -> RedisResult<Value> {
        match self.exchange(&call.by_hash(), asking).await {
            Err(error) if no_script(&error) => self.exchange(&call.by_text(), asking).await,
            other => other,
        }
    }

    pub(super) async fn send(self: &Arc<Self>, command: &Cmd) -> RedisResult<Value> {
        self.exchange(command, false).await
    }

    async fn exchange(self: &Arc<Self>, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let (number, mut connection) = self.connection().await?;
        let reply = if asking {
            after_asking(&mut connection, command).await
        } else {
            connection.send_packed_command(command).await
        };
        // An error that the server sent arrives as a value.
        let reply = reply.and_then(Value::extract_error);
        if let Err(error) = &reply
            && is_broken(error)
        {
            self.invalidate(number);
        }
        reply
    }

    async fn connection(self: &Arc<Self>) -> RedisResult<(u64, MultiplexedConnection)> {
        if let Live::Up { number, connection } = &*self.live.borrow() {
            return Ok((*number, connection.clone()));
        }
        let mut live = self.live.subscribe();
        let mut waited = false;
        loop {
            match &*live.borrow_and_update() {
                Live::Up { number, connection } => return Ok((*number, connection.clone())),
                Live::Down {
                    error: Some(error), ..
                } if waited => return Err(error.clone()),
                Live::Connecting { .. } | Live::Down { .. } => {}
            }
            self.ensure_attempt();
            // The next change is the end of this attempt or a later one.
            waited = true;
            if live.changed().await.is_err() {
                // The sender lives in `self`.
                return Err(RedisError::from((ErrorKind::Io, "the store is gone")));
            }
        }
    }

    /// Starts an attempt unless one is running or there is a connection.
    fn ensure_attempt(self: &Arc<Self>) {
        let mut mine = None;
        self.live.send_if_modified(|live| {
            let Live::Down { number, .. } = *live else {
                return false;
            };
            mine = Some(number + 1);
            *live = Live::Connecting { number: number + 1 };
            true
        });
        let Some(number) = mine else { return };
        // Created here and not in the task: a runtime that has shut down drops the task before it starts, and dropping
        // the attempt then wakes the operations that wait for it.
        let attempt = Attempt {
            server: Arc::clone(self),
            number,
        };
        self.runtime.spawn(async move {
            let connected = attempt
                .server
                .source
                .connect(attempt.server.source.time_outs().response);
            let connected = connected.await;
            attempt.end(connected);
        });
    }

    /// Marks the connection of this number as broken.
    fn invalidate(&self, number: u64) {
        self.live.send_if_modified(|live| {
            let broken = matches!(live, Live::Up { number: up, .. } if *up == number);
            if broken {
                *live = Live::Down {
                    number,
                    error: None,
                };
            }
            broken
        });
    }
}

/// A running attempt. However it ends, also by a panic, the operations that wait for it are woken.
struct Attempt {
    server: Arc<Server>,
    number: u64,
}

impl Attempt {
    fn end(&self, connected: RedisResult<MultiplexedConnection>) {
        let number = self.number;
        self.server.live.send_replace(match connected {
            Ok(connection) => Live::Up { number, connection },
            Err(error) => Live::Down {
                number,
                error: Some(error),
            },
        });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let unfinished = matches!(*self.server.live.borrow(), Live::Connecting { number } if number == self.number);
        if unfinished {
            self.end(Err(RedisError::from((
                ErrorKind::Io,
                "the attempt to connect ended early",
            ))));
        }
    }
}

/// `ASKING` applies to the next command on the connection, so both are sent together.
async fn after_asking(connection: &mut MultiplexedConnection, command: &Cmd) -> RedisResult<Value> {
    let mut both = redis::pipe();
    both.add_command(redis::cmd("ASKING"))
        .add_command(command.clone());
    let replies = connection.send_packed_commands(&both, 0, 2).await?;
    let [asked, reply]: [Value; 2] = replies
        .try_into()
        .map_err(|_| RedisError::from((ErrorKind::Parse, "expected two replies")))?;
    match reply.extract_error() {
        Ok(reply) => Ok(reply),
        // If `ASKING` itself failed, its error is the cause.
        Err(error) => Err(asked.extract_error().err().unwrap_or(error)),
    }
}

/// Whether the connection is useless: it is closed, unresponsive or out of sync, or its server is not the primary any
/// more.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || code(error) == Some(READONLY)
}
