//! Where connections come from: the one server, the primary that a sentinel names, or a node of a Cluster.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::sync::Mutex;

use super::address::Address;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until a connection is there.
    pub(super) connect: Duration,
    /// Until a reply is there.
    pub(super) respond: Duration,
}

/// How long the client waits for a sentinel that says nothing before it hears the next one: half a second on the
/// connection that it has, a second for a new one. Less would never get to that.
const SENTINEL: Duration = Duration::from_millis(1500);

/// Makes connections, each to where the primary is now.
pub(super) struct Source {
    kind: Kind,
    patience: Patience,
}

enum Kind {
    Sentinel(Box<Mutex<SentinelClient>>),
    /// Each time the next one: any node of a Cluster will do, but one may be down.
    Nodes(Vec<Client>, AtomicUsize),
}

impl Source {
    pub(super) fn new(address: Address, patience: Patience) -> RedisResult<Self> {
        let kind = match address {
            Address::Single(node) => {
                Kind::Nodes(vec![Client::open(tuned(node))?], AtomicUsize::new(0))
            }
            Address::Cluster(nodes) => {
                let clients = nodes.into_iter().map(|node| Client::open(tuned(node)));
                Kind::Nodes(clients.collect::<Result<_, _>>()?, AtomicUsize::new(0))
            }
            Address::Sentinel {
                sentinels,
                primary,
                server,
            } => {
                let mut node = SentinelNodeConnectionInfo::default()
                    .set_redis_connection_info(server.redis_settings().clone())
                    .set_tcp_settings(tcp());
                if let ConnectionAddr::TcpTls { .. } = server.addr() {
                    node = node.set_tls_mode(TlsMode::Secure);
                }
                let sentinels = sentinels.into_iter().map(tuned).collect();
                let client = SentinelClient::build(
                    sentinels,
                    primary,
                    Some(node),
                    SentinelServerType::Master,
                )?;
                Kind::Sentinel(Box::new(Mutex::new(client)))
            }
        };
        Ok(Self { kind, patience })
    }

    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// A client for where the primary is now; for a Cluster, for one of its nodes.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        match &self.kind {
            Kind::Sentinel(sentinel) => sentinel.lock().await.async_get_client().await,
            Kind::Nodes(clients, next) => {
                // Taking turns is all that it is for: no order with anything else is needed.
                let turn = next.fetch_add(1, Ordering::Relaxed);
                clients
                    .get(turn % clients.len().max(1))
                    .cloned()
                    .ok_or_else(|| {
                        RedisError::from((ErrorKind::InvalidClientConfig, "no node was given"))
                    })
            }
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
        let sentinels = match self.kind {
            Kind::Sentinel(_) => SENTINEL,
            Kind::Nodes(..) => Duration::ZERO,
        };
        within(self.patience.connect * 2 + sentinels, work).await
    }
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
