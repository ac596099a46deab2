//! Where connections come from: the one server, the primary that a sentinel names, or a node of a Cluster.

use std::{sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::sync::Mutex;

use super::error::telling;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a connection is there.
    pub(super) connect: Duration,
    /// Until a reply is there.
    pub(super) respond: Duration,
}

/// Makes connections, each to where the primary is now.
pub(super) struct Source {
    kind: Kind,
    patience: Patience,
}

enum Kind {
    /// A client for each: it asks its sentinels in turn, and one that says nothing costs it up to a second and a half
    /// each time.
    Sentinels(Vec<Mutex<SentinelClient>>),
    Node(Box<Client>),
}

impl Source {
    /// One server, or one node of a Cluster.
    pub(super) fn node(node: ConnectionInfo, patience: Patience) -> RedisResult<Arc<Self>> {
        let kind = Kind::Node(Box::new(Client::open(tuned(node))?));
        Ok(Arc::new(Self { kind, patience }))
    }

    /// The primary that these sentinels know by this name. `server` says how to talk to it; its host is not used.
    pub(super) fn sentinels(
        sentinels: Vec<ConnectionInfo>,
        primary: &str,
        server: &ConnectionInfo,
        patience: Patience,
    ) -> RedisResult<Arc<Self>> {
        let mut node = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(server.redis_settings().clone())
            .set_tcp_settings(tcp());
        if let ConnectionAddr::TcpTls { .. } = server.addr() {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        if sentinels.is_empty() {
            return Err(no_sentinel());
        }
        let clients = sentinels.into_iter().map(|sentinel| {
            let client = SentinelClient::build(
                vec![tuned(sentinel)],
                String::from(primary),
                Some(node.clone()),
                SentinelServerType::Master,
            )?;
            Ok(Mutex::new(client))
        });
        let kind = Kind::Sentinels(clients.collect::<RedisResult<_>>()?);
        Ok(Arc::new(Self { kind, patience }))
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// A client for where the primary is now.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        match &self.kind {
            Kind::Sentinels(sentinels) => {
                let ask = async |sentinel: &Mutex<SentinelClient>| {
                    sentinel.lock().await.async_get_client().await
                };
                let mut asked: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
                let mut failed = None;
                // The first one to name a server that says that it is the primary. The others are let go.
                while let Some(answer) = asked.next().await {
                    match answer {
                        Ok(client) => return Ok(client),
                        Err(error) => failed = Some(telling(failed, error)),
                    }
                }
                Err(failed.unwrap_or_else(no_sentinel))
            }
            Kind::Node(client) => Ok(Client::clone(client)),
        }
    }

    /// A connection of its own, with a reply expected within `respond`.
    pub(super) async fn connect(&self, respond: Duration) -> RedisResult<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.patience.connect))
            .set_response_timeout(Some(respond))
            // Room for bursts: a full queue makes callers wait for each other.
            .set_pipeline_buffer_size(1024);
        let connect = async {
            let client = self.client().await?;
            client
                .get_multiplexed_async_connection_with_config(&settings)
                .await
        };
        self.within(connect).await
    }

    /// What a way to the primary makes, or an error when that takes too long: all of it, from asking a sentinel to
    /// the first reply.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let steps = match self.kind {
            Kind::Sentinels(_) => 3,
            Kind::Node(_) => 2,
        };
        within(self.patience.connect * steps, work).await
    }
}

fn no_sentinel() -> RedisError {
    (ErrorKind::EmptySentinelList, "no sentinel was given").into()
}

/// The result, or an error of the kind that a silent server gives.
pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let late = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(patience, work).await.map_err(late)?
}

/// A node with the settings that all connections have.
fn tuned(node: ConnectionInfo) -> ConnectionInfo {
    node.set_tcp_settings(tcp())
}

/// Small packets leave at once, and a peer that vanished is noticed.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15));
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
}
