//! Where connections come from: the one server, the primary that a sentinel names, or a node of a Cluster.

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

use super::error::telling;

/// How long after an answer of one sentinel those of the others are waited for. Less than what an operation waits, and more
/// than what a sentinel takes that is sound.
const OTHERS: Duration = Duration::from_millis(300);
/// The least patience with sentinels: the client has its own time for each, of one to two seconds.
const SENTINELS: Duration = Duration::from_millis(2500);

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
            Kind::Sentinels(sentinels) => named(sentinels).await,
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
        let patience = match self.kind {
            Kind::Sentinels(_) => SENTINELS.max(self.patience.connect.saturating_mul(3)),
            Kind::Node(_) => self.patience.connect.saturating_mul(2),
        };
        within(patience, work).await
    }
}

/// A client for the server that most sentinels name, and that says itself that it is the primary. More than half of
/// them are enough; those who are silent are waited for no longer than [`OTHERS`] once somebody answered.
///
/// One that is cut off from the others goes on naming the primary that is cut off with it, and processes that believe
/// different ones would claim the same key on two servers.
async fn named(sentinels: &[Mutex<SentinelClient>]) -> RedisResult<Client> {
    let ask = async |(at, sentinel): (usize, &Mutex<SentinelClient>)| {
        (at, sentinel.lock().await.async_get_client().await)
    };
    let mut asked: FuturesUnordered<_> = sentinels.iter().enumerate().map(ask).collect();
    let (mut named, mut failed) = (Votes::default(), None);
    loop {
        let answer = if named.0.is_empty() {
            asked.next().await
        } else {
            timeout(OTHERS, asked.next()).await.unwrap_or(None)
        };
        match answer {
            Some((at, Ok(client))) => {
                named.0.push((at, client));
                if let Some(client) = named.by_more_than(sentinels.len() / 2) {
                    return Ok(client);
                }
            }
            Some((_, Err(error))) => failed = Some(telling(failed, error)),
            None => break,
        }
    }
    let most = named.by_more_than(0);
    most.ok_or_else(|| failed.unwrap_or_else(no_sentinel))
}

/// Who was named, and by which sentinel of the URL.
#[derive(Default)]
struct Votes(Vec<(usize, Client)>);

impl Votes {
    /// The one that most name, if these are more than so many. Of several the one that the first in the URL names: all
    /// processes decide alike.
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

/// The result, or an error of the kind that a silent server gives.
pub(super) async fn within<T>(
    patience: Duration,
    work: impl Future<Output = RedisResult<T>>,
) -> RedisResult<T> {
    let late = |_| RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    timeout(patience, work).await.map_err(late)?
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

#[cfg(test)]
mod tests {
    use super::{
        super::fake::{Fake, text},
        *,
    };

    fn source(sentinels: &[&Fake]) -> Arc<Source> {
        let patience = Patience {
            connect: Duration::from_millis(200),
            respond: Duration::from_millis(900),
        };
        let server = sentinels[0].info();
        let sentinels = sentinels.iter().map(|sentinel| sentinel.info()).collect();
        Source::sentinels(sentinels, "main", &server, patience).expect("a source")
    }

    /// From now on this sentinel says that `main` is there.
    fn names(sentinel: &Fake, primary: &Fake) {
        let port = primary.port().to_string();
        let words = ["name", "main", "ip", "127.0.0.1", "port", &port, "flags"];
        let words: String = words.into_iter().chain(["master"]).map(text).collect();
        let role = format!("*2\r\n{}*0\r\n", text("sentinel"));
        sentinel.says("ROLE", role);
        sentinel.says("SENTINEL MASTERS", format!("*1\r\n*8\r\n{words}"));
    }

    async fn named(source: &Source) -> u16 {
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

    /// A sentinel that is cut off with the old primary answers first, and both think that nothing happened.
    #[tokio::test]
    async fn what_one_sentinel_says_is_not_believed_against_two() {
        let [old, new, stale, second, third] = fakes().await;
        names(&stale, &old);
        for sentinel in [&second, &third] {
            names(sentinel, &new);
            sentinel.delay(Duration::from_millis(1));
        }
        for sentinels in [[&stale, &second, &third], [&second, &stale, &third]] {
            assert_eq!(named(&source(&sentinels)).await, new.port());
        }
        // One of two, and the other says something else: all processes choose alike, whoever is quicker.
        assert_eq!(named(&source(&[&second, &stale])).await, new.port());
        assert_eq!(named(&source(&[&stale, &second])).await, old.port());
        // Two of five are not enough, though they are the quickest.
        let [fourth, fifth] = fakes().await;
        names(&fourth, &old);
        names(&fifth, &new);
        fifth.delay(Duration::from_millis(1));
        let all = source(&[&stale, &fourth, &second, &third, &fifth]);
        assert_eq!(named(&all).await, new.port());
    }

    /// The client waits longer than a second for a sentinel that says nothing.
    #[tokio::test]
    async fn silent_sentinels_are_not_waited_for_once_one_answered() {
        let [primary, quick, silent, other] = fakes().await;
        names(&quick, &primary);
        for sentinel in [&silent, &other] {
            sentinel.says("", None);
        }
        let source = source(&[&silent, &other, &quick]);
        let asked = async { named(&source).await };
        let port = timeout(Duration::from_millis(800), asked).await;
        assert_eq!(port.expect("soon"), primary.port());
        assert_eq!(
            named(&super::tests::source(&[&quick])).await,
            primary.port()
        );
    }

    /// The time that the client gives a sentinel is its own, and no longer than what is waited in all.
    #[tokio::test]
    async fn a_sentinel_may_take_longer_than_the_connections_to_the_server() {
        let [primary, slow] = fakes().await;
        names(&slow, &primary);
        slow.delay(Duration::from_millis(250));
        assert_eq!(named(&source(&[&slow])).await, primary.port());
    }
}
