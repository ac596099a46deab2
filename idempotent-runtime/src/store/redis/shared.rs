//! A connection that all operations share, and that is made again when it breaks.
//!
//! 1. One connection carries all operations. An operation that finds it broken invalidates it, and the next one starts
//!    a single attempt to connect, for all.
//! 2. An attempt belongs to no operation: it goes on when the operation that started it is dropped. All operations that
//!    wait for it share its failure, so that none waits for more than one attempt.
//! 3. A connection to many nodes of which some answer is *replaced* instead: it serves until the new one is there.

use std::{sync::Arc, time::Duration};

use redis::{ErrorKind, RedisError, RedisResult};
use tokio::{runtime::Handle, sync::watch, time::Instant};

/// The shortest time between two replacements: each connects to all nodes.
const REST: Duration = Duration::from_secs(1);

/// Makes connections of one kind.
pub(super) trait Connect: Send + Sync + 'static {
    type Connection: Clone + Send + Sync + 'static;

    /// Makes one connection. Ends by itself.
    fn connect(&self) -> impl Future<Output = RedisResult<Self::Connection>> + Send;
}

/// The one connection of this kind.
pub(super) struct Shared<S: Connect> {
    source: S,
    live: watch::Sender<Live<S::Connection>>,
    runtime: Handle,
}

enum Live<C> {
    /// `number` distinguishes this connection from earlier ones.
    Up {
        number: u64,
        connection: C,
        since: Instant,
    },
    /// An attempt is running, for the connection of this number; the one before may still serve.
    Connecting { number: u64, serving: Option<C> },
    /// There was no attempt yet, the last one failed, or its connection broke.
    Down {
        number: u64,
        error: Option<RedisError>,
    },
}

impl<C: Clone> Live<C> {
    fn serving(&self) -> Option<(u64, C)> {
        match self {
            Self::Up {
                number, connection, ..
            } => Some((*number, connection.clone())),
            Self::Connecting {
                number,
                serving: Some(connection),
            } => Some((number - 1, connection.clone())),
            _ => None,
        }
    }
}

impl<S: Connect> Shared<S> {
    /// Its attempts to connect run on this runtime, whichever runtime the operations run on.
    pub(super) fn new(source: S, runtime: Handle) -> Arc<Self> {
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

    pub(super) fn source(&self) -> &S {
        &self.source
    }

    /// The connection and its number.
    pub(super) async fn connection(self: &Arc<Self>) -> RedisResult<(u64, S::Connection)> {
        if let Some(serving) = self.live.borrow().serving() {
            return Ok(serving);
        }
        let mut live = self.live.subscribe();
        let mut waited = false;
        loop {
            match &*live.borrow_and_update() {
                Live::Down {
                    error: Some(error), ..
                } if waited => return Err(error.clone()),
                state => {
                    if let Some(serving) = state.serving() {
                        return Ok(serving);
                    }
                }
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
        self.attempt_if(|live| match live {
            Live::Down { number, .. } => Some((*number, None)),
            _ => None,
        });
    }

    /// Marks the connection of this number as broken: the next operation makes another one.
    pub(super) fn invalidate(&self, broken: u64) {
        self.live.send_if_modified(|live| {
            let is_broken = matches!(live, Live::Up { number, .. } if *number == broken);
            if is_broken {
                let number = broken;
                *live = Live::Down {
                    number,
                    error: None,
                };
            }
            is_broken
        });
    }

    /// Replaces the connection of this number, which serves until the new one is there and stays if none can be made.
    pub(super) fn replace(self: &Arc<Self>, doubted: u64) {
        self.attempt_if(|live| match live {
            Live::Up {
                number,
                connection,
                since,
            } if *number == doubted && since.elapsed() >= REST => {
                Some((*number, Some(connection.clone())))
            }
            _ => None,
        });
    }

    /// Starts an attempt if `begin` returns the number of the connection before it, and that connection if it serves
    /// meanwhile.
    fn attempt_if(
        self: &Arc<Self>,
        begin: impl Fn(&Live<S::Connection>) -> Option<(u64, Option<S::Connection>)>,
    ) {
        let mut mine = None;
        self.live.send_if_modified(|live| {
            let Some((before, serving)) = begin(live) else {
                return false;
            };
            let number = before + 1;
            mine = Some((number, serving.clone()));
            *live = Live::Connecting { number, serving };
            true
        });
        let Some((number, serving)) = mine else {
            return;
        };
        // Created here and not in the task: a runtime that has shut down drops the task before it starts, and dropping
        // the attempt then wakes the operations that wait for it.
        let attempt = Attempt {
            shared: Arc::clone(self),
            number,
            serving,
        };
        self.runtime.spawn(async move {
            let connected = attempt.shared.source.connect().await;
            attempt.end(connected);
        });
    }
}

/// A running attempt. However it ends, also by a panic, the operations that wait for it are woken.
struct Attempt<S: Connect> {
    shared: Arc<Shared<S>>,
    number: u64,
    serving: Option<S::Connection>,
}

impl<S: Connect> Attempt<S> {
    fn end(&self, connected: RedisResult<S::Connection>) {
        let (number, since) = (self.number, Instant::now());
        let serving = || {
            // Under the old number a later error replaces it again.
            self.serving.clone().map(|connection| Live::Up {
                number,
                connection,
                since,
            })
        };
        self.shared.live.send_replace(match connected {
            Ok(connection) => Live::Up {
                number,
                connection,
                since,
            },
            Err(error) => {
                let shown: &dyn std::error::Error = &error;
                tracing::debug!(error = shown, "no connection to Redis could be made");
                serving().unwrap_or(Live::Down {
                    number,
                    error: Some(error),
                })
            }
        });
    }
}

impl<S: Connect> Drop for Attempt<S> {
    fn drop(&mut self) {
        let unfinished = matches!(*self.shared.live.borrow(), Live::Connecting { number, .. } if number == self.number);
        if unfinished {
            let ended = (ErrorKind::Io, "the attempt to connect ended early");
            self.end(Err(RedisError::from(ended)));
        }
    }
}
