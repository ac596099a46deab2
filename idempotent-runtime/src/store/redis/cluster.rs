//! The link to a Cluster.
//!
//! 1. Each node has a connection of its own, which is made again like that to a single server. A node that is down or
//!    unreachable stops the operations for its own slots, and no others.
//! 2. The slot map is read from a few nodes at once, by one task for all operations; see [`refresh`].
//! 3. An operation that a node refuses because the slot has moved, or has no owner at the moment, was not executed: it
//!    is sent again, a bounded number of times. For operations that were sent and not answered, see [`Cluster::run`].
//!
//! The cluster client of the `redis` crate repeats every operation that timed out, and keeps the unresponsive
//! connection: a release could get the answer to its repetition, and a node whose machine vanished is asked for as long
//! as the system keeps the connection. It reads the slots, and connects to new nodes, under a lock that all operations
//! need, so that one slow node stops all operations.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::seq::IteratorRandom as _;
use redis::{ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, sleep},
};

use self::refresh::Refresh;
use super::{
    error::{READONLY, code},
    script::Call,
    server::Server,
    slots::{Doubt, NodeAddress, SLOTS, Slots, slot},
    source::{Source, TimeOuts},
};

#[cfg(test)]
mod faults;
mod refresh;

/// How often an operation is sent at most.
const ATTEMPTS: u32 = 6;
/// The pause before the first repetition to the same node; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(20);
/// After this time an operation is not sent again. The last wait may have begun just before, and takes 320 ms of pause
/// and [`refresh::REFRESH_WAIT`], so that the last repetition begins 1.6 s after the operation, and its reply may take
/// until 2.5 s. The engine may have given up by then: its time-out is 2 s by default, and half of that for the first
/// try of an acquire, which it then repeats with the same token. An operation that nobody waits for is not sent again.
const REPEATED: Duration = Duration::from_secs(1);

/// The nodes and the slot map.
pub(super) struct Cluster {
    /// What all nodes have in common: credentials and TLS.
    template: ConnectionInfo,
    time_outs: TimeOuts,
    seeds: HashSet<NodeAddress>,
    /// The nodes of the URL, the primaries, and their replicas, whose view is read when no other node answers.
    nodes: Mutex<HashMap<NodeAddress, Arc<Node>>>,
    slots: RwLock<Arc<Slots<Arc<Node>>>>,
    /// The ids of the nodes in the last view.
    ids: Mutex<HashSet<String>>,
    refresh_state: watch::Sender<Refresh>,
    /// The age of the store, in milliseconds, at which the next periodic refresh is due.
    due: AtomicU64,
    opened: Instant,
    runtime: Handle,
}

/// One node of a Cluster.
pub(super) struct Node {
    address: NodeAddress,
    pub(super) server: Arc<Server>,
    /// The doubt after the last operation on it: 0 none, 1 [`Doubt::Unreachable`], 2 [`Doubt::Refused`].
    doubted: AtomicU8,
}

/// The node to which another node redirected an operation.
struct Redirection {
    node: Arc<Node>,
    /// The slot is being moved there: the operation has to be preceded by `ASKING`.
    asking: bool,
}

impl Cluster {
    /// A Cluster by some of its nodes, from which the topology is read before the first operation.
    pub(super) fn of(
        seeds: &[ConnectionInfo],
        time_outs: TimeOuts,
        runtime: Handle,
    ) -> RedisResult<Arc<Self>> {
        let no_node = || RedisError::from((ErrorKind::InvalidClientConfig, "no node was given"));
        let template = seeds.first().cloned().ok_or_else(no_node)?;
        let addresses = seeds.iter().filter_map(|seed| NodeAddress::of(seed.addr()));
        let cluster = Arc::new(Self {
            template,
            time_outs,
            seeds: addresses.collect(),
            nodes: Mutex::default(),
            slots: RwLock::default(),
            ids: Mutex::default(),
            refresh_state: watch::Sender::new(Refresh::first()),
            due: AtomicU64::new(refresh::first_due()),
            opened: Instant::now(),
            runtime,
        });
        for seed in &cluster.seeds {
            cluster.node(seed)?;
        }
        Ok(cluster)
    }

    /// Runs a script on the node of its record. `after_loss`: it may be sent once more when its reply was lost, as in
    /// [`Link::run`](super::link::Link::run). If that fails too, the first error is returned: the first call may have
    /// been executed, whatever a node answers to the repetition.
    pub(super) async fn run(
        self: &Arc<Self>,
        call: &Call<'_>,
        after_loss: bool,
    ) -> RedisResult<Value> {
        let slot = slot(call.record());
        let (mut to, mut lost) = (None, None);
        let (mut attempt, begun) = (1, Instant::now());
        loop {
            let (node, reply) = self.attempt(call, slot, to.take()).await;
            let next = reply.as_ref().err().map(Next::after);
            if let Some(node) = &node {
                node.record_result(next.as_ref());
            }
            let (error, next) = match (reply, next) {
                (Err(error), Some(next)) => (error, next),
                (reply, _) => {
                    self.refresh_if_due();
                    return reply;
                }
            };
            let again = attempt < ATTEMPTS && begun.elapsed() < REPEATED;
            match next {
                Next::Elsewhere { asking } if again => {
                    to = self.redirection(&error, node.as_deref(), asking);
                    if !asking {
                        self.start_refresh();
                    }
                    if to.is_none() {
                        self.wait(attempt).await;
                    }
                }
                Next::Later if again => self.wait(attempt).await,
                Next::Lost if after_loss && lost.is_none() && again => {
                    lost = Some(error);
                    self.wait_for_refresh().await;
                }
                Next::Elsewhere { .. } | Next::Later | Next::Lost | Next::Unreachable => {
                    self.start_refresh();
                    return Err(lost.unwrap_or(error));
                }
                Next::End => return Err(lost.unwrap_or(error)),
            }
            attempt += 1;
        }
    }

    /// Sends the call once. Returns also the node it was sent to.
    async fn attempt(
        &self,
        call: &Call<'_>,
        slot: u16,
        to: Option<Redirection>,
    ) -> (Option<Arc<Node>>, RedisResult<Value>) {
        let asking = to.as_ref().is_some_and(|to| to.asking);
        let Some(node) = to.map(|to| to.node).or_else(|| self.owner(slot)) else {
            let no_owner = (
                ErrorKind::ClusterConnectionNotFound,
                "no node owns the record's slot",
            );
            return (None, Err(no_owner.into()));
        };
        let reply = node.server.call(call, asking).await;
        (Some(node), reply)
    }

    /// The redirection in an error of this node.
    fn redirection(
        &self,
        error: &RedisError,
        from: Option<&Node>,
        asking: bool,
    ) -> Option<Redirection> {
        let (address, _) = error.redirect_node()?;
        let (host, port) = address.rsplit_once(':')?;
        let address = NodeAddress::announced(host, port.parse().ok()?, &from?.address)?;
        let node = self.node(&address).ok()?;
        Some(Redirection { node, asking })
    }

    /// Waits before the next attempt.
    async fn wait(self: &Arc<Self>, attempt: u32) {
        let pause = PAUSE * 2_u32.saturating_pow(attempt - 1);
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        self.wait_for_refresh().await;
    }

    /// Checks that the Cluster serves the slots of this node: without another node it may be down as a whole.
    pub(super) async fn serves(&self, node: &Node, prefix: &str) -> RedisResult<()> {
        let slots = self.slots();
        let has = |slot| {
            slots
                .owner(slot)
                .is_some_and(|owner| owner.address == node.address)
        };
        // Checked first, because without a slot of this node a million names would be tried in vain.
        let any = slots.primaries().any(|owner| owner.address == node.address);
        let mut keys = (0..u32::from(SLOTS) * 64).map(|n| format!("{prefix}served-{n}"));
        let key = any.then(|| keys.find(|key| has(slot(key.as_bytes()))));
        let Some(key) = key.flatten() else {
            return Err((ErrorKind::Io, "the node owns no slots any more").into());
        };
        // A write that changes nothing, because the key does not exist. A read may be served where a write is not.
        let mut probe = redis::cmd("PEXPIRE");
        match node.server.send(probe.arg(key).arg(1)).await {
            Err(error) => match Next::after(&error) {
                Next::Later | Next::Lost | Next::Unreachable => Err(error),
                // It answers, if only with a missing permission or a redirection.
                Next::Elsewhere { .. } | Next::End => Ok(()),
            },
            Ok(_) => Ok(()),
        }
    }

    /// A primary to subscribe on: each node receives the messages of all.
    pub(super) fn node_to_listen_on(&self) -> RedisResult<Arc<Node>> {
        let slots = self.slots();
        let rng = &mut rand::rng();
        let sound = slots.primaries().filter(|node| node.doubted().is_none());
        let node = sound.choose(rng).or_else(|| slots.primaries().choose(rng));
        let no_primary =
            || RedisError::from((ErrorKind::ClusterConnectionNotFound, "no primary is known"));
        node.cloned().ok_or_else(no_primary)
    }

    /// Records that a command other than an operation failed on this node. A missing permission says nothing about the
    /// node.
    pub(super) fn failed(self: &Arc<Self>, node: &Node, error: &RedisError) {
        let next = Next::after(error);
        if !matches!(next, Next::End) {
            node.record_result(Some(&next));
            self.start_refresh();
        }
    }

    /// Waits until this node is not a primary any more. It may have left the Cluster, and then receives no messages.
    pub(super) async fn until_removed(&self, node: &Node) {
        let mut refresh_state = self.refresh_state.subscribe();
        while self
            .slots()
            .primaries()
            .any(|primary| primary.address == node.address)
        {
            if refresh_state.changed().await.is_err() {
                // The sender lives in `self`.
                return;
            }
        }
    }

    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.slots().owner(slot).cloned()
    }

    fn slots(&self) -> Arc<Slots<Arc<Node>>> {
        // The map is only replaced under the lock, so a poisoned lock is as good.
        Arc::clone(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<NodeAddress, Arc<Node>>> {
        // The map is consistent whenever the lock is free, so a poisoned lock is as good.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at this address. Its connection is made when it is needed.
    fn node(&self, address: &NodeAddress) -> RedisResult<Arc<Node>> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(address) {
            return Ok(Arc::clone(node));
        }
        let info = self
            .template
            .clone()
            .set_addr(address.address_like(&self.template));
        let source = Source::node(info, self.time_outs)?;
        let node = Arc::new(Node {
            address: address.clone(),
            server: Server::new(source, self.runtime.clone()),
            doubted: AtomicU8::new(0),
        });
        nodes.insert(address.clone(), Arc::clone(&node));
        Ok(node)
    }
}

impl Node {
    /// Records the result of an operation on this node.
    fn record_result(&self, failure: Option<&Next>) {
        match failure {
            None => self.doubt(None),
            Some(Next::Elsewhere { asking: false } | Next::Later) => {
                self.doubt(Some(Doubt::Refused));
            }
            Some(Next::Lost | Next::Unreachable) => self.doubt(Some(Doubt::Unreachable)),
            // It still owns the slot, or any node would refuse this.
            Some(Next::Elsewhere { asking: true } | Next::End) => {}
        }
    }

    /// Sets the doubt that the next refresh considers. No other memory depends on it.
    pub(super) fn doubt(&self, doubt: Option<Doubt>) {
        // It rarely changes, and reading first does not invalidate the cache line of other cores.
        if self.doubted() != doubt {
            let number = doubt.map_or(0, |doubt| 1 + doubt as u8);
            self.doubted.store(number, Ordering::Relaxed);
        }
    }

    fn doubted(&self) -> Option<Doubt> {
        match self.doubted.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Doubt::Unreachable),
            _ => Some(Doubt::Refused),
        }
    }
}

/// What to do after an error.
enum Next {
    /// The call was not executed: the slot is on another node.
    Elsewhere {
        asking: bool,
    },
    /// The call was not executed: the node cannot serve it at the moment.
    Later,
    /// The connection broke: it is unknown whether the call was executed.
    Lost,
    /// The node did not answer: it is unknown whether the call was executed.
    Unreachable,
    End,
}

impl Next {
    fn after(error: &RedisError) -> Self {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, TryAgain};
        match error.kind() {
            ErrorKind::Server(Moved) => Self::Elsewhere { asking: false },
            ErrorKind::Server(Ask) => Self::Elsewhere { asking: true },
            ErrorKind::Server(TryAgain | ClusterDown | MasterDown | BusyLoading)
            | ErrorKind::ClusterConnectionNotFound => Self::Later,
            // The node is not a primary any more; the refresh finds the new one.
            _ if code(error) == Some(READONLY) => Self::Later,
            _ if error.is_connection_dropped() => Self::Lost,
            _ if error.is_io_error() || error.is_unrecoverable_error() => Self::Unreachable,
            _ => Self::End,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_before_and_after_execution_are_distinguished() {
        let after = |line: &str| {
            let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
            let error = value.and_then(Value::extract_error).expect_err("an error");
            Next::after(&error)
        };
        assert!(matches!(
            after("MOVED 1 a:1"),
            Next::Elsewhere { asking: false }
        ));
        assert!(matches!(
            after("ASK 1 a:1"),
            Next::Elsewhere { asking: true }
        ));
        for passing in [
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "CLUSTERDOWN The cluster is down",
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
        ] {
            assert!(matches!(after(passing), Next::Later), "{passing}");
        }
        for end in ["OOM command not allowed", "NOPERM no", "ERR unknown"] {
            assert!(matches!(after(end), Next::End), "{end}");
        }
        let io = |kind| Next::after(&RedisError::from(std::io::Error::from(kind)));
        assert!(matches!(io(std::io::ErrorKind::BrokenPipe), Next::Lost));
        assert!(matches!(
            io(std::io::ErrorKind::TimedOut),
            Next::Unreachable
        ));
    }
}
