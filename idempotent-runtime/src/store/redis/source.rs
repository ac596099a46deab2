//! Makes connections: to a single server, to the primary that sentinels name, or to a node of a Cluster.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError,
    RedisResult, TlsMode,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType},
};
use tokio::{sync::Mutex, time::timeout};

use super::error::more_specific;

/// How long to wait after one sentinel's answer for the next one. Shorter than the time-out of an operation, and longer
/// than a healthy sentinel takes.
const NEXT_ANSWER: Duration = Duration::from_millis(300);
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
}

enum Kind {
    /// One client per sentinel: a client asks its sentinels in turn, and an unreachable one would cost it up to a
    /// second and a half each time.
    Sentinels(Vec<Mutex<SentinelClient>>),
    Node(Box<Client>),
}

impl Source {
    /// One server, or one node of a Cluster.
    pub(super) fn node(node: ConnectionInfo, time_outs: TimeOuts) -> RedisResult<Arc<Self>> {
        let kind = Kind::Node(Box::new(Client::open(tuned(node))?));
        Ok(Arc::new(Self { kind, time_outs }))
    }

    /// The primary that these sentinels know by this name. `server` has its credentials, TLS and database; its host is
    /// not used.
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
        Ok(Arc::new(Self { kind, time_outs }))
    }

    pub(super) fn time_outs(&self) -> TimeOuts {
        self.time_outs
    }

    /// A client for the current primary or the node.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        match &self.kind {
            Kind::Sentinels(sentinels) => primary_by_quorum(sentinels).await,
            Kind::Node(client) => Ok(Client::clone(client)),
        }
    }

    /// Makes a new connection, with `response` as the time-out of a reply.
    pub(super) async fn connect(&self, response: Duration) -> RedisResult<MultiplexedConnection> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.time_outs.connect))
            .set_response_timeout(Some(response))
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

/// A client for the server that most sentinels name, and that reports itself to be the primary. A quorum of more than
/// half is enough; once a sentinel has answered, each further one is waited for no longer than [`NEXT_ANSWER`].
///
/// A sentinel that is partitioned from the others goes on naming the primary that is partitioned with it. Processes
/// that used different primaries would claim the same key on two servers.
async fn primary_by_quorum(sentinels: &[Mutex<SentinelClient>]) -> RedisResult<Client> {
    let ask = async |(at, sentinel): (usize, &Mutex<SentinelClient>)| {
        (at, sentinel.lock().await.async_get_client().await)
    };
    let mut asked: FuturesUnordered<_> = sentinels.iter().enumerate().map(ask).collect();
    let (mut named, mut failed) = (Votes::default(), None);
    loop {
        let answer = if named.0.is_empty() {
            asked.next().await
        } else {
            timeout(NEXT_ANSWER, asked.next()).await.unwrap_or(None)
        };
        match answer {
            Some((at, Ok(client))) => {
                named.0.push((at, client));
                if let Some(client) = named.by_more_than(sentinels.len() / 2) {
                    return Ok(client);
                }
            }
            Some((_, Err(error))) => failed = Some(more_specific(failed, error)),
            None => break,
        }
    }
    let most = named.by_more_than(0);
    most.ok_or_else(|| failed.unwrap_or_else(no_sentinel))
}

/// The servers that were named, each with the position of its sentinel in the URL.
#[derive(Default)]
struct Votes(Vec<(usize, Client)>);

impl Votes {
    /// The server that most sentinels name, if more than `few` do. Among equals the one that the first sentinel in the
    /// URL names, so that all processes choose the same one.
    fn by_more_than(&self, few: usize) -> Option<Client> {
        let address = |client: &Client| client.get_connection_info().addr().clone();
        let count = |client: &Client| {
            let same = |(_, other): &&(usize, Client)| address(other) == address(client);
            self.0.iter().filter(same).count()
        };
        let most = self
            .0
            .iter()
            .max_by_key(|(at, client)| (count(client), Reverse(*at)));
        let (_, client) = most.filter(|(_, client)| count(client) > few)?;
        Some(client.clone())
    }
}

fn no_sentinel() -> RedisError {
    (ErrorKind::EmptySentinelList, "no sentinel was given").into()
}

/// The result, or the error of an unresponsive server.
pub(super) async fn within<T>(
    time_outs: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let late = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    timeout(time_outs, work).await.map_err(late)?
}

/// A node with the TCP settings of all connections.
fn tuned(node: ConnectionInfo) -> ConnectionInfo {
    node.set_tcp_settings(tcp())
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

    /// A sentinel that is partitioned together with the old primary answers first, and neither has noticed it.
    #[tokio::test]
    async fn two_sentinels_outvote_a_third() {
        let [old, new, stale, second, third] = fakes().await;
        names(&stale, &old);
        for sentinel in [&second, &third] {
            names(sentinel, &new);
            sentinel.delay(Duration::from_millis(1));
        }
        for sentinels in [[&stale, &second, &third], [&second, &stale, &third]] {
            assert_eq!(port(&source(&sentinels)).await, new.port());
        }
        // Two sentinels that name different servers: all processes choose the same one, whichever answers first.
        assert_eq!(port(&source(&[&second, &stale])).await, new.port());
        assert_eq!(port(&source(&[&stale, &second])).await, old.port());
        // Two of five are not enough, even if they answer first.
        let [fourth, fifth] = fakes().await;
        names(&fourth, &old);
        names(&fifth, &new);
        fifth.delay(Duration::from_millis(1));
        let all = source(&[&stale, &fourth, &second, &third, &fifth]);
        assert_eq!(port(&all).await, new.port());
    }

    /// The client waits longer than a second for an unreachable sentinel.
    #[tokio::test]
    async fn unreachable_sentinels_are_not_waited_for_once_one_has_answered() {
        let [primary, quick, unreachable, other] = fakes().await;
        names(&quick, &primary);
        for sentinel in [&unreachable, &other] {
            sentinel.says("", None);
        }
        let source = source(&[&unreachable, &other, &quick]);
        let asked = async { port(&source).await };
        let found = timeout(Duration::from_millis(800), asked).await;
        assert_eq!(found.expect("no time-out"), primary.port());
        assert_eq!(port(&super::tests::source(&[&quick])).await, primary.port());
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
