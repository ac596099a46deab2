//! [`RedisStoreBuilder`]: the settings, and opening a store.

use std::{fmt, sync::Arc, time::Duration};

use redis::RedisResult;
use tokio::runtime::Handle;

use super::{
    ConnectError, RedisStore, Shared,
    address::Address,
    check::{self, ServerFacts},
    cluster::Cluster,
    confirm::Confirm,
    link::Link,
    names::Names,
    script::Scripts,
    server::Server,
    source::{Source, TimeOuts},
    wakeup::{self, Listener},
};
use crate::store::weakness::{Accepted, Weakness};

/// Settings of a [`RedisStore`]; each has a default.
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct RedisStoreBuilder {
    url: String,
    prefix: String,
    accepted: Accepted,
    replicas: Option<(u32, Duration)>,
    push: bool,
    /// How long a connection that listens stays when nobody waits any more.
    pub(super) linger: Duration,
    time_outs: TimeOuts,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "idempotent:".to_owned(),
            accepted: Accepted::default(),
            replicas: None,
            push: true,
            linger: wakeup::LINGER,
            time_outs: TimeOuts {
                connect: Duration::from_secs(1),
                response: Duration::from_millis(900),
            },
        }
    }

    /// The prefix of all keys: 1 to 64 ASCII letters, digits and `:` `-` `_` `.` `/`. `idempotent:` unless set.
    ///
    /// Services that share a server but not their records need different prefixes.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Accepts servers with this weakness, and with no other; may be called several times.
    ///
    /// **This weakens the promise**: after a crash of the server, or an eviction, a retry can execute a second time.
    /// What the probe found is logged as a warning instead of being an error.
    pub fn accept(mut self, weakness: Weakness) -> Self {
        self.accepted.accept(weakness);
        self
    }

    /// Accepts a server that does not permit the probe, and a Cluster some of whose primaries do not answer or are unknown.
    /// What could not be found out is logged as a warning. It accepts no weakness that was found.
    pub fn accept_unverified(mut self) -> Self {
        self.accepted.unverified = true;
        self
    }

    pub(in crate::store) fn accept_all(mut self, accepted: Accepted) -> Self {
        self.accepted = accepted;
        self
    }

    /// Acknowledges a claim or an outcome only when this many replicas have it, so that a failover to one of them does
    /// not lose it. If fewer confirm within the time-out, the operation fails and the request gets a 503.
    ///
    /// **It does not make Redis consistent.** A write that was not confirmed in time may be applied nevertheless; it is
    /// repeated with its token. A failover may choose a replica that did not confirm: require all of them, or make the
    /// sentinels prefer those that do (`replica-priority`). A primary that is partitioned from its sentinels goes on
    /// answering until it notices: set `min-replicas-to-write` to this number too. Renewals, releases and abandoned
    /// leases are not confirmed. After a failover to a replica that lacks the last renewals, a lease looks lapsed while
    /// its request still executes: with `on_crash = "retry"` it then executes a second time. A lost release leaves the
    /// answer `outcome_unknown` until the record expires.
    ///
    /// On Redis 7.2 and later with an append-only file, `WAITAOF` is used: the write must be on the disks of the
    /// primary and of the replicas; with `0` replicas, on the primary's. Older servers have `WAIT`, which waits for the
    /// memory of the replicas. Keep the time-out well under the engine's store time-out.
    pub fn wait_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.replicas = Some((replicas, timeout));
        self
    }

    /// Whether requests that wait for a record of another process are woken when it changes, as [Waking
    /// waiters](super#waking-waiters) describes. On unless set. Off, nothing is published or subscribed to, and waiters
    /// poll. Processes with and without push may share their records.
    pub fn push(mut self, yes: bool) -> Self {
        self.push = yes;
        self
    }

    /// The time-out of making a connection: 1 s unless set. A whole attempt ends after twice the time; through
    /// sentinels, which are asked first, after three times the time and at least 2.5 s, because the client has its own
    /// time-outs for them.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.time_outs.connect = timeout;
        self
    }

    /// The time-out of a reply, after which its connection is closed: 900 ms unless set. Keep it under half of the
    /// engine's store time-out, so that an acquire whose reply was lost can be repeated.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.time_outs.response = timeout;
        self
    }

    /// Connects, and checks that the server keeps acknowledged writes.
    ///
    /// # Errors
    ///
    /// If a setting is invalid, or the server does not answer, refuses the user, or may lose acknowledged writes. It is
    /// an error after five seconds, so that a failover can end, if no node of a Cluster answers, one of its primaries
    /// does not, or no node reports a complete slot map. Requests sent just before that are waited for, which takes
    /// some seconds more if nodes are unreachable.
    pub async fn connect(self) -> Result<RedisStore, ConnectError> {
        if !is_prefix(&self.prefix) {
            return Err(ConnectError::Prefix {
                prefix: self.prefix,
            });
        }
        let address = Address::parse(&self.url)?;
        #[cfg(feature = "redis-tls")]
        choose_cryptography();
        let runtime = Handle::current();
        let link = self.link(address, &runtime);
        let link = link.map_err(|source| ConnectError::of("the handshake", source))?;
        let facts = check::check(&link, &self.prefix, self.accepted).await?;
        let is_7 = facts.version >= Some((7, 0));
        let scripts = Scripts::new(is_7);
        check::load(&link, &facts.servers, &scripts).await?;
        let confirm = self.confirm(&link, &facts)?;
        let names = Arc::new(Names::new(self.prefix));
        let listener = self.push.then(|| {
            let (link, names) = (link.clone(), Arc::clone(&names));
            Listener::new(link, names, is_7, self.linger, runtime)
        });
        Ok(RedisStore(Arc::new(Shared {
            link,
            scripts,
            confirm,
            names,
            listener,
        })))
    }

    /// The link to the servers of this address. Sends nothing yet.
    fn link(&self, address: Address, runtime: &Handle) -> RedisResult<Link> {
        let time_outs = self.time_outs;
        let source = match address {
            Address::Cluster(nodes) => {
                return Cluster::of(nodes, time_outs, runtime.clone()).map(Link::Cluster);
            }
            Address::Single(node) => Source::node(node, time_outs)?,
            Address::Sentinel {
                sentinels,
                primary,
                server,
            } => Source::sentinels(sentinels, &primary, &server, time_outs)?,
        };
        Ok(Link::Server(Server::new(source, runtime.clone())))
    }

    fn confirm(&self, link: &Link, facts: &ServerFacts) -> Result<Option<Confirm>, ConnectError> {
        let Some((replicas, timeout)) = self.replicas else {
            return Ok(None);
        };
        let flushed = facts.append_only && facts.version >= Some((7, 2));
        let reason = match link {
            Link::Cluster(_) => {
                "a Cluster's connections are shared, and WAIT confirms the writes of one connection only"
            }
            Link::Server(_) if timeout.is_zero() => {
                "a time-out of zero would wait without a limit: set a longer one"
            }
            Link::Server(_) if replicas == 0 && !flushed => {
                "with 0 replicas it needs Redis 7.2 and an append-only file"
            }
            Link::Server(server) => {
                let server = Arc::clone(server);
                return Ok(Some(Confirm::new(server, replicas, timeout, flushed)));
            }
        };
        Err(ConnectError::Wait { reason })
    }
}

/// No braces: the text between them would put all records into one hash slot. No spaces and no wildcards, which would
/// have to be escaped in every ACL rule and tool.
fn is_prefix(prefix: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '/');
    (1..=64).contains(&prefix.len()) && prefix.chars().all(fits)
}

/// Installs a cryptography provider for rustls if the process has chosen none; the client expects one.
#[cfg(feature = "redis-tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails only if another provider was installed at this moment, which is as good.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL, which may contain a password.
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("accepted", &self.accepted)
            .field("replicas", &self.replicas)
            .field("push", &self.push)
            .field("time_outs", &self.time_outs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::is_prefix;

    #[test]
    fn prefixes_contain_plain_characters_only() {
        for good in ["idempotent:", "a", "eu-1/payments_v2.0:", &"p".repeat(64)] {
            assert!(is_prefix(good), "{good:?}");
        }
        for bad in [
            "",
            "{a}:",
            "a b",
            "a*",
            "a?",
            "a\n",
            "ä",
            "a[b]",
            &"p".repeat(65),
        ] {
            assert!(!is_prefix(bad), "{bad:?}");
        }
    }
}
