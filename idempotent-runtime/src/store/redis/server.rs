//! The way to the server that all operations share: multiplexed, and mended when it breaks.
//!
//! 1. One connection carries everything that is under way. Whoever finds it broken gives it up, and whoever
//!    comes next starts one attempt to connect, for all.
//! 2. An attempt belongs to no operation: it goes on when the operation that started it is dropped. All operations that wait
//!    for it share its failure, so that none waits for more than one attempt.
//! 3. A reply that does not come in time breaks the connection too: a peer that vanished without a word is
//!    noticed by nothing else.
//!
//! The crate's own connection manager does neither follow sentinels nor replace a connection that is silent.

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
    /// `number` tells this connection from those before.
    Up {
        number: u64,
        connection: MultiplexedConnection,
    },
    /// An attempt is under way. It will be the `number`th.
    Connecting { number: u64 },
    /// There was no attempt yet, or the last one failed, or its connection broke.
    Down {
        number: u64,
        error: Option<RedisError>,
    },
}

impl Server {
    /// Its attempts to connect run on this runtime, whoever starts them.
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

    /// Calls a script, by its text where the server does not know it. `asking` tells the node of a Cluster that
    /// the record's slot is on its way there.
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
        // An error of the server comes as a value.
        let reply = reply.and_then(Value::extract_error);
        if let Err(error) = &reply
            && is_broken(error)
        {
            self.give_up(number);
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
            // Whatever comes next is the end of this attempt, or later.
            waited = true;
            if live.changed().await.is_err() {
                // The sender lives in `self`.
                return Err(RedisError::from((ErrorKind::Io, "the store is gone")));
            }
        }
    }

    /// Starts an attempt, unless there is one, or a connection.
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
        // Made here and not in the task: a runtime that has shut down drops the task without a start, and those who
        // wait are told of that too.
        let attempt = Attempt {
            server: Arc::clone(self),
            number,
        };
        self.runtime.spawn(async move {
            let connected = attempt
                .server
                .source
                .connect(attempt.server.source.patience().respond);
            let connected = connected.await;
            attempt.end(connected);
        });
    }

    /// The connection of this number is broken.
    fn give_up(&self, number: u64) {
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

/// An attempt under way. However it ends, by a panic too, those who wait for it are told.
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

/// `ASKING` counts for the command that comes next on the connection, so both are sent as one.
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
        // Why the node did not serve the slot, if it was not asked right.
        Err(error) => Err(asked.extract_error().err().unwrap_or(error)),
    }
}

/// Whether the connection is of no more use: it is cut, silent or incomprehensible, or leads to a server that
/// is no primary any more.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || code(error) == Some(READONLY)
}
