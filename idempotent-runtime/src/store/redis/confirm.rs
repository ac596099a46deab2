//! Writes that are acknowledged only when replicas have confirmed them.
//!
//! `WAIT` confirms the writes of its own connection and blocks it. So each confirmed write has a connection for itself,
//! over which the script and the `WAIT` are sent together: still one round trip.

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
    server::{Server, is_broken},
};
use crate::store::error::{StoreError, StoreErrorKind};

/// The largest number of connections for confirmed writes; further writes wait for one.
const MAX_CONNECTIONS: usize = 64;

/// Runs scripts and has replicas confirm them.
pub(super) struct Confirm {
    server: Arc<Server>,
    replicas: u32,
    timeout: Duration,
    /// Whether to use `WAITAOF`, which waits for disks, instead of `WAIT`, which waits for memory.
    flushed: bool,
    idle: Mutex<Vec<MultiplexedConnection>>,
    permits: Semaphore,
}

/// Fewer replicas than required confirmed the write in time. It may be applied nevertheless.
#[derive(Debug)]
struct Unconfirmed {
    wanted: u32,
    confirmed: i64,
}

impl Confirm {
    pub(super) fn new(
        server: Arc<Server>,
        replicas: u32,
        timeout: Duration,
        flushed: bool,
    ) -> Self {
        Self {
            server,
            replicas,
            timeout,
            flushed,
            idle: Mutex::default(),
            permits: Semaphore::new(MAX_CONNECTIONS),
        }
    }

    /// Runs a script. `is_write` tells by its answer whether replicas must confirm it; `after_loss` is as in
    /// [`Link::run`](super::link::Link::run).
    pub(super) async fn run(
        &self,
        call: &Call<'_>,
        is_write: fn(&Value) -> bool,
        after_loss: bool,
    ) -> Result<Value, StoreError> {
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.ok();
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect().await.map_err(error::store_error)?,
        };
        let replies = match self.call(&mut connection, call).await {
            // While it was idle, the connection broke or its server stopped being the primary; the same is true of the
            // other idle ones.
            Err(error)
                if (after_loss && error.is_connection_dropped())
                    || code(&error) == Some(READONLY) =>
            {
                self.idle().clear();
                connection = self.connect().await.map_err(error::store_error)?;
                let refused = code(&error) == Some(READONLY);
                let again = self.call(&mut connection, call).await;
                // A replica applied nothing, so the second error says what is wrong. After a broken connection the first
                // attempt may have been applied, whatever the server answers to the second.
                again.map_err(|next| if refused { next } else { error })
            }
            other => other,
        };
        match &replies {
            // The other connections lead to the same server.
            Err(error) if is_broken(error) => self.idle().clear(),
            // Only now: after a dropped operation, or on a broken connection, a reply may still come.
            _ => self.idle().push(connection),
        }
        let (value, confirmed) = replies.map_err(error::store_error)?;
        if confirmed < i64::from(self.replicas) && is_write(&value) {
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

    /// Sends a script and a `WAIT`. Returns the script's value and how many replicas confirmed it.
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
                // The primary itself has not flushed it.
                _ => -1,
            },
            _ => return Err((ErrorKind::UnexpectedReturnType, "WAIT returned no number").into()),
        };
        Ok((value, confirmed))
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let respond = self.server.source().time_outs().response + self.timeout;
        self.server.connect(respond).await
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<MultiplexedConnection>> {
        // The list is consistent whenever the lock is free, so a poisoned lock is as good.
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
