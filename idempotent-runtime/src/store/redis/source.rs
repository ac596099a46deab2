//! Makes connections: to a single server, to the primary that sentinels name, or to a node of a Cluster.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ProtocolVersion, PushInfo,
    RedisError, RedisResult, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::{
    sync::{Mutex, mpsc::UnboundedSender},
    time::timeout,
};

/// The shortest time-out with sentinels: the client has its own for each, of one to two seconds.
const MIN_SENTINELS: Duration = Duration::from_millis(2500);

/// The time-outs of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeOuts {
    /// Of making the connection.
    pub(super) connect: Duration,
    /// Of a reply.
    pub(super) response: Duration,
}

/// Makes connections to the current primary, or to a node.
pub(super) struct Source {
    kind: Kind,
    time_outs: TimeOuts,
    /// The number of the database.
    db: i64,
}

enum Kind {
    Sentinels(Box<Mutex<SentinelClient>>),
    Node(Box<Client>),
}

impl Source {
    /// One server, or one node of a Cluster.
    pub(super) fn node(node: ConnectionInfo, time_outs: TimeOuts) -> RedisResult<Arc<Self>> {
        let db = node.redis_settings().db();
        let node = node.set_tcp_settings(tcp());
        let kind = Kind::Node(Box::new(Client::open(node)?));
        Ok(Arc::new(Self {
            kind,
            time_outs,
            db,
        }))
    }

    /// The primary that these sentinels know by this name. `server` has its credentials, TLS and database; its host is
    /// not used.
    ///
    /// The client asks several sentinels at once, and connects to the first server in the order of the list that is
    /// named and confirms itself that it is the primary.
    pub(super) fn sentinels(
        sentinels: Vec<ConnectionInfo>,
        primary: &str,
        server: &ConnectionInfo,
        time_outs: TimeOuts,
    ) -> RedisResult<Arc<Self>> {
        let mut node = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(server.redis_settings().clone())
            .set_tcp_settings(tcp());
        if let ConnectionAddr::TcpTls { .. } = server.addr() {
            node = node.set_tls_mode(TlsMode::Secure);
        }
        let sentinels = sentinels
            .into_iter()
            .map(|sentinel| sentinel.set_tcp_settings(tcp()))
            .collect();
        let (name, kind) = (String::from(primary), SentinelServerType::Master);
        let client = SentinelClient::build(sentinels, name, Some(node), kind)?;
        let kind = Kind::Sentinels(Box::new(Mutex::new(client)));
        let db = server.redis_settings().db();
        Ok(Arc::new(Self {
            kind,
            time_outs,
            db,
        }))
    }

    pub(super) fn time_outs(&self) -> TimeOuts {
        self.time_outs
    }

    pub(super) fn db(&self) -> i64 {
        self.db
    }

    /// Whether sentinels are asked where the primary is.
    pub(super) fn is_by_sentinels(&self) -> bool {
        matches!(self.kind, Kind::Sentinels(_))
    }

    /// A client for the current primary or the node.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        match &self.kind {
            Kind::Sentinels(sentinels) => {
                let mut sentinels = sentinels.lock().await;
                // Boxed: nested in the futures of operations, this one exceeds what the compiler follows in an
                // application's crate.
                sentinels.async_get_client().boxed().await
            }
            Kind::Node(client) => Ok(Client::clone(client)),
        }
    }

    /// Makes a new connection, with `response` as the time-out of a reply.
    pub(super) async fn connect(&self, response: Duration) -> RedisResult<MultiplexedConnection> {
        let settings = self.settings(response);
        let connect = async {
            let client = self.client().await?;
            client
                .get_multiplexed_async_connection_with_config(&settings)
                .await
        };
        self.within(connect).await
    }

    /// Makes a new connection that passes on what the server sends without being asked, and its own end.
    pub(super) async fn connect_for_pushes(
        &self,
        pushes: UnboundedSender<PushInfo>,
    ) -> RedisResult<MultiplexedConnection> {
        let settings = self.settings(self.time_outs.response);
        let settings = settings.set_push_sender(pushes);
        let connect = async {
            let client = self.client().await?;
            let info = client.get_connection_info().clone();
            // The older protocol cannot tell messages from replies.
            let redis = info.redis_settings().clone();
            let redis = redis.set_protocol(ProtocolVersion::RESP3);
            Client::open(info.set_redis_settings(redis))?
                .get_multiplexed_async_connection_with_config(&settings)
                .await
        };
        self.within(connect).await
    }

    fn settings(&self, response: Duration) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.time_outs.connect))
            .set_response_timeout(Some(response))
            // Room for bursts: a full queue makes callers wait for each other.
            .set_pipeline_buffer_size(1024)
    }

    /// Bounds an attempt to connect as a whole, from asking the sentinels to the first reply.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let time_outs = match self.kind {
            Kind::Sentinels(_) => MIN_SENTINELS.max(self.time_outs.connect.saturating_mul(3)),
            Kind::Node(_) => self.time_outs.connect.saturating_mul(2),
        };
        within(time_outs, work).await
    }
}

/// The result, or the error of an unresponsive server.
pub(super) async fn within<T>(
    time_outs: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let late = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    timeout(time_outs, work).await.map_err(late)?
}

/// For how long the system sends again what the peer has not received. Without it Linux gives up after fifteen minutes,
/// later than an operation may arrive ([`LONGEST_DELAY`](crate::store::LONGEST_DELAY)).
#[cfg(target_os = "linux")]
const UNRECEIVED: Duration = Duration::from_secs(30);

/// Small packets are sent at once, and keepalive detects a peer that vanished. A connection that is closed delivers nothing
/// more: otherwise the system would go on for minutes with requests that were given up.
pub(super) fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15));
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
        .set_linger_time(Duration::ZERO);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNRECEIVED);
    settings
}

#[cfg(test)]
mod tests {
    use super::{
        super::fake::{Fake, text},
        *,
    };

    fn source(sentinels: &[&Fake]) -> Arc<Source> {
        let time_outs = TimeOuts {
            connect: Duration::from_millis(200),
            response: Duration::from_millis(900),
        };
        let server = sentinels[0].info();
        let sentinels = sentinels.iter().map(|sentinel| sentinel.info()).collect();
        Source::sentinels(sentinels, "main", &server, time_outs).expect("a source")
    }

    /// Makes this sentinel name this primary from now on.
    fn names(sentinel: &Fake, primary: &Fake) {
        let port = primary.port().to_string();
        let words = ["name", "main", "ip", "127.0.0.1", "port", &port, "flags"];
        let words: String = words.into_iter().chain(["master"]).map(text).collect();
        let role = format!("*2\r\n{}*0\r\n", text("sentinel"));
        sentinel.says("ROLE", role);
        sentinel.says("SENTINEL MASTERS", format!("*1\r\n*8\r\n{words}"));
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_delivers_nothing_more() {
        use tokio::io::AsyncReadExt as _;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let silent = listener.expect("a port");
        let port = silent.local_addr().expect("an address").port();
        let url = format!("redis://127.0.0.1:{port}");
        let info = redis::IntoConnectionInfo::into_connection_info(url).expect("a URL");
        let time_outs = TimeOuts {
            connect: Duration::from_millis(200),
            response: Duration::from_millis(200),
        };
        let source = Source::node(info, time_outs).expect("a source");
        let accepted = async { silent.accept().await.expect("a connection").0 };
        let (connected, mut stream) = tokio::join!(source.connect(time_outs.response), accepted);
        connected.expect_err("the server does not answer");
        let ended = loop {
            match stream.read(&mut [0; 1024]).await {
                Ok(1..) => {}
                ended => break ended,
            }
        };
        let reset = ended.expect_err("a reset, and no orderly end");
        assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    }

    async fn port(source: &Source) -> u16 {
        let client = source.within(source.client()).await.expect("a primary");
        match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(_, port) => *port,
            other => panic!("{other} is another address"),
        }
    }

    async fn fakes<const N: usize>() -> [Fake; N] {
        let fakes: Vec<_> = futures_util::future::join_all((0..N).map(|_| Fake::new())).await;
        fakes.try_into().ok().expect("as many as asked for")
    }

    /// A server that was demoted still has the sentinel beside it.
    #[tokio::test]
    async fn a_server_that_is_not_the_primary_any_more_is_not_used() {
        let [old, new, stale, current] = fakes().await;
        names(&stale, &old);
        names(&current, &new);
        let replica = format!("*2\r\n{}*0\r\n", text("slave"));
        old.says("ROLE", replica);
        old.says("INFO", super::super::fake::info("7.0.0", "1", "slave"));
        assert_eq!(port(&source(&[&stale, &current])).await, new.port());
    }

    #[tokio::test]
    async fn unreachable_sentinels_are_passed_over_in_time() {
        let [primary, unreachable, other, third] = fakes().await;
        names(&third, &primary);
        for sentinel in [&unreachable, &other] {
            sentinel.says("", None);
        }
        let source = source(&[&unreachable, &other, &third]);
        // Of the whole attempt.
        assert_eq!(port(&source).await, primary.port());
    }

    /// The client has its own time-out for a sentinel, which is shorter than that of the whole attempt.
    #[tokio::test]
    async fn a_sentinel_may_take_longer_than_the_connections_to_the_server() {
        let [primary, slow] = fakes().await;
        names(&slow, &primary);
        slow.delay(Duration::from_millis(250));
        assert_eq!(port(&source(&[&slow])).await, primary.port());
    }
}
