//! Writes that count only once replicas have them.
//!
//! `WAIT` answers for the writes of its own connection and blocks it, so each confirmed write takes a
//! connection for itself, with the script and the `WAIT` sent together: still one round trip.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redis::{ErrorKind, RedisResult, Value, aio::MultiplexedConnection};
use tokio::sync::Semaphore;

use super::{
    NAME,
    error::{self, READONLY, code},
    script::{Call, no_script},
    server::is_broken,
    source::Source,
};
use crate::store::error::{StoreError, StoreErrorKind};

/// Connections for confirmed writes at most; more of them wait for their turn.
const MOST: usize = 64;

/// Runs scripts and has replicas confirm them.
pub(super) struct Confirm {
    source: Arc<Source>,
    replicas: u32,
    timeout: Duration,
    /// `WAITAOF`, where there is such a thing: it counts disks, not memories.
    flushed: bool,
    idle: Mutex<Vec<MultiplexedConnection>>,
    turns: Semaphore,
}

/// Fewer replicas than asked for confirmed the write in time. It may be in force all the same.
#[derive(Debug)]
struct Unconfirmed {
    wanted: u32,
    confirmed: i64,
}

impl Confirm {
    pub(super) fn new(
        source: Arc<Source>,
        replicas: u32,
        timeout: Duration,
        flushed: bool,
    ) -> Self {
        Self {
            source,
            replicas,
            timeout,
            flushed,
            idle: Mutex::default(),
            turns: Semaphore::new(MOST),
        }
    }

    /// Runs a script. `matters` says of its answer whether it tells of a write, or of an outcome.
    pub(super) async fn run(
        &self,
        call: &Call<'_>,
        matters: fn(&Value) -> bool,
    ) -> Result<Value, StoreError> {
        // Never closed; were it, there would be no bound, but still a result.
        let _turn = self.turns.acquire().await.ok();
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await.map_err(error::store_error)?,
        };
        let replies = match self.call(&mut connection, call).await {
            // It was idle for long enough to break, or for its server to be no primary any more, and so were the
            // others. The operations that are confirmed may arrive twice; if the second fails, the first may have been
            // applied all the same, and its error stands.
            Err(error) if error.is_connection_dropped() || code(&error) == Some(READONLY) => {
                self.idle().clear();
                connection = self.connect().await.map_err(error::store_error)?;
                self.call(&mut connection, call).await.map_err(|_| error)
            }
            other => other,
        };
        match &replies {
            // The other connections lead to the same server.
            Err(error) if is_broken(error) => self.idle().clear(),
            // Only now: an operation that was dropped half-way, or whose connection broke, has left a reply to come.
            _ => self.idle().push(connection),
        }
        let (value, confirmed) = replies.map_err(error::store_error)?;
        if confirmed < i64::from(self.replicas) && matters(&value) {
            let unconfirmed = Unconfirmed {
                wanted: self.replicas,
                confirmed,
            };
            return Err(StoreError::new(NAME, StoreErrorKind::Unavailable).with_source(unconfirmed));
        }
        Ok(value)
    }

    async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        call: &Call<'_>,
    ) -> RedisResult<(Value, i64)> {
        match self.send(connection, &call.by_hash()).await {
            Err(error) if no_script(&error) => self.send(connection, &call.by_text()).await,
            other => other,
        }
    }

    /// The script's value, and how many replicas have it.
    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        script: &redis::Cmd,
    ) -> RedisResult<(Value, i64)> {
        let millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let mut wait = redis::cmd(if self.flushed { "WAITAOF" } else { "WAIT" });
        if self.flushed {
            wait.arg(1);
        }
        wait.arg(self.replicas).arg(millis);
        let mut both = redis::pipe();
        both.add_command(script.clone()).add_command(wait);
        let mut replies = connection
            .send_packed_commands(&both, 0, 2)
            .await?
            .into_iter();
        let (Some(value), Some(waited)) = (replies.next(), replies.next()) else {
            return Err((ErrorKind::Parse, "expected two replies").into());
        };
        let value = value.extract_error()?;
        let confirmed = match waited.extract_error()? {
            Value::Int(replicas) => replicas,
            Value::Array(counts) => match counts[..] {
                [Value::Int(local), Value::Int(replicas)] if local >= 1 => replicas,
                // Not even the primary's own disk.
                _ => -1,
            },
            _ => return Err((ErrorKind::UnexpectedReturnType, "WAIT answered no number").into()),
        };
        Ok((value, confirmed))
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let respond = self.source.patience().respond + self.timeout;
        self.source.connect(respond).await
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<MultiplexedConnection>> {
        // Nothing is done under the lock that could leave the list in disorder.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, confirmed } = self;
        match confirmed {
            ..0 => f.write_str("the server did not flush the write in time"),
            _ => write!(
                f,
                "{confirmed} of {wanted} replicas confirmed the write in time"
            ),
        }
    }
}

impl Error for Unconfirmed {}
