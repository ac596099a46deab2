//! How a store is opened.

use std::{fmt, sync::Arc, time::Duration};

use redis::RedisResult;
use tokio::runtime::Handle;

use super::{
    ConnectError, RedisStore, Shared,
    address::Address,
    check::{self, Facts},
    cluster::Cluster,
    confirm::Confirm,
    link::Link,
    script::Scripts,
    server::Server,
    source::{Patience, Source},
    wakeup::Wakes,
};

/// Opens a [`RedisStore`]; every setting has a default.
#[derive(Clone)]
#[must_use = "a builder does nothing until `connect`"]
pub struct RedisStoreBuilder {
    url: String,
    prefix: String,
    accept_weaker_durability: bool,
    replicas: Option<(u32, Duration)>,
    patience: Patience,
}

impl RedisStoreBuilder {
    pub(super) fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            prefix: "idempotent:".to_owned(),
            accept_weaker_durability: false,
            replicas: None,
            patience: Patience {
                connect: Duration::from_secs(1),
                respond: Duration::from_millis(900),
            },
        }
    }

    /// What the names of all keys begin with: 1 to 64 of letters, digits and `:` `-` `_` `.` `/`.
    /// `idempotent:` unless set.
    ///
    /// Services that share a server and must not share records need prefixes of their own.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Uses the server although it may lose what it acknowledged, or does not permit to look, and a Cluster although
    /// some of its primaries do not answer or are not known.
    ///
    /// **This weakens the promise**: after a crash of the server, or an eviction, a retry can execute a second
    /// time. What was found is logged as a warning instead of being an error.
    pub fn accept_weaker_durability(mut self) -> Self {
        self.accept_weaker_durability = true;
        self
    }

    /// Counts a claim or an outcome only when this many replicas have it, so that a failover to one of them
    /// loses nothing. Fewer within the time-out: the operation fails, and the request gets a 503.
    ///
    /// **It does not make Redis consistent.** A write that was not confirmed in time may be in force all the same; it
    /// is repeated with its token. Failover may choose a replica that was not among those that confirmed: ask for all
    /// of them, or have the sentinels prefer those (`replica-priority`). A primary that is cut off from its sentinels
    /// goes on answering until it finds out: set `min-replicas-to-write` to this number too. Renewals, releases and
    /// abandoned leases are not confirmed. After a failover to a replica that lacks the last renewals a lease looks
    /// lapsed while its request still executes: with `on_crash = "retry"` it executes a second time then. A lost
    /// release leaves the answer `outcome_unknown` until the record expires.
    ///
    /// From Redis 7.2 on, with an append-only file, `WAITAOF` is used: the write must be on the disks of the
    /// primary and of the replicas; with `0` replicas, on the primary's. Older servers have `WAIT`, which asks
    /// for the memory of the replicas. Keep the time-out well under the engine's store time-out.
    pub fn wait_replicas(mut self, replicas: u32, timeout: Duration) -> Self {
        self.replicas = Some((replicas, timeout));
        self
    }

    /// How long a connection may take until it is there: 1 s unless set. An attempt is given up after twice as much; by
    /// sentinels, which are asked first, after three times as much, and not before 2.5 s, because the client has its
    /// own time-outs for them.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.patience.connect = timeout;
        self
    }

    /// How long a reply may take before its connection is given up: 900 ms unless set. Keep it under half of
    /// the engine's store time-out, so that an acquire whose reply was lost can be repeated.
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.patience.respond = timeout;
        self
    }

    /// Connects, and looks whether the server keeps what it acknowledges.
    ///
    /// # Errors
    ///
    /// If a setting makes no sense, or the server does not answer, refuses us, or is weaker than the promise. A
    /// Cluster none of whose nodes answers, one of whose primaries does not, or whose nodes do not know who has all
    /// slots, is an error after five seconds, so that a failover can end. What was asked just before is waited for,
    /// which takes some seconds more with nodes that say nothing.
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
        let facts = check::check(&link, &self.prefix, self.accept_weaker_durability).await?;
        let scripts = Scripts::new(facts.version >= Some((7, 0)));
        check::load(&link, &facts.servers, &scripts).await?;
        let confirm = self.confirm(&link, &facts)?;
        Ok(RedisStore(Arc::new(Shared {
            link,
            scripts,
            confirm,
            channel: format!("{}done", self.prefix),
            prefix: self.prefix,
            wakes: Arc::new(Wakes::default()),
            listener: std::sync::OnceLock::new(),
            runtime,
        })))
    }

    /// The way to the servers of this address. Nothing is sent yet.
    fn link(&self, address: Address, runtime: &Handle) -> RedisResult<Link> {
        let patience = self.patience;
        let source = match address {
            Address::Cluster(nodes) => {
                return Cluster::of(&nodes, patience, runtime.clone()).map(Link::Cluster);
            }
            Address::Single(node) => Source::node(node, patience)?,
            Address::Sentinel {
                sentinels,
                primary,
                server,
            } => Source::sentinels(sentinels, &primary, &server, patience)?,
        };
        Ok(Link::Server(Server::new(source, runtime.clone())))
    }

    fn confirm(&self, link: &Link, facts: &Facts) -> Result<Option<Confirm>, ConnectError> {
        let Some((replicas, timeout)) = self.replicas else {
            return Ok(None);
        };
        let flushed = facts.append_only && facts.version >= Some((7, 2));
        let reason = match link {
            Link::Cluster(_) => {
                "a Cluster's connections are shared, and WAIT answers for one connection"
            }
            Link::Server(_) if timeout.is_zero() => "a time-out of zero would wait for ever",
            Link::Server(_) if replicas == 0 && !flushed => {
                "no replica needs Redis 7.2 and an append-only file"
            }
            Link::Server(server) => {
                let source = Arc::clone(server.source());
                return Ok(Some(Confirm::new(source, replicas, timeout, flushed)));
            }
        };
        Err(ConnectError::Wait { reason })
    }
}

/// No braces: what is between them would be the hash slot of all records. No spaces and no wildcards, which
/// would have to be escaped in every ACL rule and tool.
fn is_prefix(prefix: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '/');
    (1..=64).contains(&prefix.len()) && prefix.chars().all(fits)
}

/// The client asks rustls for the process's choice, and there may be none.
#[cfg(feature = "redis-tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Refused only when somebody else chose in this moment, which is as good.
        let _chosen = rustls::crypto::ring::default_provider().install_default();
    }
}

impl fmt::Debug for RedisStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URL: it may contain a password.
        f.debug_struct("RedisStoreBuilder")
            .field("prefix", &self.prefix)
            .field("accept_weaker_durability", &self.accept_weaker_durability)
            .field("replicas", &self.replicas)
            .field("patience", &self.patience)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::is_prefix;

    #[test]
    fn prefixes_are_plain() {
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
