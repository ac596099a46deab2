//! The connection to a single server: the one of the URL, the primary that sentinels name, or one node of a Cluster.
//!
//! A reply that does not come in time breaks the connection: only that detects a peer that vanished without closing it,
//! and a closed connection delivers nothing more (see [`source`](super::source)). The connection manager of the `redis`
//! crate keeps such a connection, and does not follow sentinels.

use std::{sync::Arc, time::Duration};

use redis::{Cmd, ErrorKind, RedisError, RedisResult, Value, aio::MultiplexedConnection};
use tokio::runtime::Handle;

use super::{
    durability::{Durability, REPLIES, questions},
    error::{READONLY, code},
    identity::Identity,
    script::{Call, no_script},
    shared::{Connect, Shared},
    source::Source,
};
use crate::store::weakness::Accepted;

/// The one connection to a server.
pub(super) struct Server(Arc<Shared<Identified>>);

/// A server, and which one it was.
struct Identified {
    source: Arc<Source>,
    identity: Identity,
}

impl Connect for Identified {
    type Connection = MultiplexedConnection;

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        self.connect_with(self.source.time_outs().response).await
    }
}

impl Identified {
    /// Makes a connection to the server that is known, with `response` as the time-out of a reply.
    async fn connect_with(&self, response: Duration) -> RedisResult<MultiplexedConnection> {
        let mut connection = self.source.connect(response).await?;
        if self.identity.is_known() {
            let questions = questions();
            let replies = connection.send_packed_commands(&questions, 0, REPLIES);
            self.identity.compare(Durability::read(replies.await?)?)?;
        }
        Ok(connection)
    }
}

impl Server {
    /// Its attempts to connect run on this runtime, whichever runtime the operations run on.
    pub(super) fn new(source: Arc<Source>, runtime: Handle) -> Arc<Self> {
        let identity = Identity::new(source.db(), source.is_by_sentinels());
        Arc::new(Self(Shared::new(Identified { source, identity }, runtime)))
    }

    pub(super) fn source(&self) -> &Arc<Source> {
        &self.0.source().source
    }

    /// Asks the server about its durability.
    pub(super) async fn durability(&self) -> RedisResult<Durability> {
        let (number, mut connection) = self.0.connection().await?;
        let questions = questions();
        let replies = connection.send_packed_commands(&questions, 0, REPLIES);
        let read = replies.await.and_then(Durability::read);
        if let Err(error) = &read
            && is_broken(error)
        {
            self.0.invalidate(number);
        }
        read
    }

    /// From now on, each new connection is asked whether this is still the server that said so.
    pub(super) fn know(&self, said: &Durability, accepted: Accepted) {
        self.0.source().identity.know(said, accepted);
    }

    /// Makes a connection beside the one that all operations share, with `response` as the time-out of a reply.
    pub(super) async fn connect(&self, response: Duration) -> RedisResult<MultiplexedConnection> {
        self.0.source().connect_with(response).await
    }

    /// Calls a script, by text if the server does not know its hash. `asking` is for a node of a Cluster to which the
    /// record's slot is being moved.
    pub(super) async fn call(&self, call: &Call<'_>, asking: bool) -> RedisResult<Value> {
        match self.exchange(&call.by_hash(), asking).await {
            Err(error) if no_script(&error) => self.exchange(&call.by_text(), asking).await,
            other => other,
        }
    }

    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.exchange(command, false).await
    }

    async fn exchange(&self, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let (number, mut connection) = self.0.connection().await?;
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
            self.0.invalidate(number);
        }
        reply
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
