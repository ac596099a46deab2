//! The way to a Cluster.
//!
//! 1. Each node has a connection of its own, which mends itself as the one to a single server does. A node that is
//!    down or silent stops the operations for its own slots, and no others.
//! 2. Who has which slot is asked of a few nodes at once, by one task for all operations; see [`look`].
//! 3. What a node refuses because the slot is elsewhere, or nowhere at the moment, was not executed: the operation is sent
//!    again, a bounded number of times. What was sent and never answered is another matter; see [`Cluster::run`].
//!
//! The crate's own client sends again what timed out, whatever it was, and keeps the connection that was silent: a
//! release could be answered for its repetition, and a node whose machine vanished is asked for as long as the system
//! keeps the connection. It asks for the slots, and connects to new nodes, under a lock that all operations need, so that
//! one slow node stops the operations for all.

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

use self::look::Looking;
use super::{
    error::{READONLY, code},
    script::Call,
    server::Server,
    slots::{Doubt, Place, SLOTS, Slots, slot},
    source::{Patience, Source},
};

mod look;
#[cfg(test)]
mod nodes;

/// How often an operation is sent at most.
const ATTEMPTS: u32 = 6;
/// Before the first repetition to the same node; twice as much before each one after it.
const PAUSE: Duration = Duration::from_millis(20);
/// After this much time no operation is sent again. The last wait may have begun just before, and takes 320 ms of pause
/// and [`look::LOOKED`], so that the last repetition begins 1.6 s after the operation, and its reply may take until 2.5 s.
/// The engine may have gone by then: it waits 2 s unless told otherwise, and half of that for the first try of an
/// acquire, which it then makes anew with the same token. An operation that nobody waits for is not sent again.
const REPEATED: Duration = Duration::from_secs(1);

/// The nodes, and who has which slot.
pub(super) struct Cluster {
    /// What all nodes have in common: credentials and TLS.
    template: ConnectionInfo,
    patience: Patience,
    seeds: HashSet<Place>,
    /// Those of the URL, the primaries, and their replicas, which are asked for the slots when no other is left.
    nodes: Mutex<HashMap<Place, Arc<Node>>>,
    slots: RwLock<Arc<Slots<Arc<Node>>>>,
    /// The names of the nodes that were told last.
    ids: Mutex<HashSet<String>>,
    looking: watch::Sender<Looking>,
    /// The age in milliseconds at which it is time for a look that nobody asked for.
    due: AtomicU64,
    opened: Instant,
    runtime: Handle,
}

/// One node of a Cluster.
pub(super) struct Node {
    place: Place,
    pub(super) server: Arc<Server>,
    /// What is held against it: 0 nothing, 1 [`Doubt::Silent`], 2 [`Doubt::Refused`], by the last operation that went there.
    doubted: AtomicU8,
}

/// Where a node sent an operation.
struct Redirection {
    node: Arc<Node>,
    /// The slot is on its way there, and the node has to be told that the operation knows.
    asking: bool,
}

impl Cluster {
    /// Some of its nodes. They are asked for the others before the first operation.
    pub(super) fn of(
        seeds: &[ConnectionInfo],
        patience: Patience,
        runtime: Handle,
    ) -> RedisResult<Arc<Self>> {
        let no_node = || RedisError::from((ErrorKind::InvalidClientConfig, "no node was given"));
        let template = seeds.first().cloned().ok_or_else(no_node)?;
        let places = seeds.iter().filter_map(|seed| Place::of(seed.addr()));
        let cluster = Arc::new(Self {
            template,
            patience,
            seeds: places.collect(),
            nodes: Mutex::default(),
            slots: RwLock::default(),
            ids: Mutex::default(),
            looking: watch::Sender::new(Looking::first()),
            due: AtomicU64::new(look::first_due()),
            opened: Instant::now(),
            runtime,
        });
        for seed in &cluster.seeds {
            cluster.node(seed)?;
        }
        Ok(cluster)
    }

    /// Runs a script where its record is. `repeat`: it may be sent once more when its reply was lost, because running
    /// it twice is the same as running it once. If that fails too, the first error stands: what was asked may have
    /// been done, whatever a node says of the repetition.
    pub(super) async fn run(self: &Arc<Self>, call: &Call<'_>, repeat: bool) -> RedisResult<Value> {
        let slot = slot(call.record());
        let (mut to, mut lost) = (None, None);
        let (mut attempt, begun) = (1, Instant::now());
        loop {
            let (node, reply) = self.attempt(call, slot, to.take()).await;
            let next = reply.as_ref().err().map(Next::after);
            if let Some(node) = &node {
                node.judge(next.as_ref());
            }
            let (error, next) = match (reply, next) {
                (Err(error), Some(next)) => (error, next),
                (reply, _) => {
                    self.look_now_and_then();
                    return reply;
                }
            };
            let again = attempt < ATTEMPTS && begun.elapsed() < REPEATED;
            match next {
                Next::Elsewhere { asking } if again => {
                    to = self.redirection(&error, node.as_deref(), asking);
                    if !asking {
                        self.start_looking();
                    }
                    if to.is_none() {
                        self.wait(attempt).await;
                    }
                }
                Next::Later if again => self.wait(attempt).await,
                Next::Lost if repeat && lost.is_none() && again => {
                    lost = Some(error);
                    self.looked().await;
                }
                Next::Elsewhere { .. } | Next::Later | Next::Lost | Next::Silent => {
                    self.start_looking();
                    return Err(lost.unwrap_or(error));
                }
                Next::End => return Err(lost.unwrap_or(error)),
            }
            attempt += 1;
        }
    }

    /// One try, and the node that it went to.
    async fn attempt(
        &self,
        call: &Call<'_>,
        slot: u16,
        to: Option<Redirection>,
    ) -> (Option<Arc<Node>>, RedisResult<Value>) {
        let asking = to.as_ref().is_some_and(|to| to.asking);
        let Some(node) = to.map(|to| to.node).or_else(|| self.owner(slot)) else {
            let nobody = (
                ErrorKind::ClusterConnectionNotFound,
                "no node has the record's slot",
            );
            return (None, Err(nobody.into()));
        };
        let reply = node.server.call(call, asking).await;
        (Some(node), reply)
    }

    /// Where the error of this node points.
    fn redirection(
        &self,
        error: &RedisError,
        from: Option<&Node>,
        asking: bool,
    ) -> Option<Redirection> {
        let (place, _) = error.redirect_node()?;
        let (host, port) = place.rsplit_once(':')?;
        let place = Place::told(host, port.parse().ok()?, &from?.place)?;
        let node = self.node(&place).ok()?;
        Some(Redirection { node, asking })
    }

    /// Until it is worth trying again.
    async fn wait(self: &Arc<Self>, attempt: u32) {
        let pause = PAUSE * 2_u32.saturating_pow(attempt - 1);
        sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
        self.looked().await;
    }

    /// Whether the Cluster serves the slots of this node: as a whole it may be down for the lack of another.
    pub(super) async fn serves(&self, node: &Node, prefix: &str) -> RedisResult<()> {
        let slots = self.slots();
        let has = |slot| {
            slots
                .owner(slot)
                .is_some_and(|owner| owner.place == node.place)
        };
        // Asked first, or a million names would be gone through for nothing.
        let any = slots.primaries().any(|owner| owner.place == node.place);
        let mut keys = (0..u32::from(SLOTS) * 64).map(|n| format!("{prefix}served-{n}"));
        let key = any.then(|| keys.find(|key| has(slot(key.as_bytes()))));
        let Some(key) = key.flatten() else {
            return Err((ErrorKind::Io, "the node has no slots any more").into());
        };
        // A write that changes nothing: there is no such key, and reads may be served where writes are not.
        let mut probe = redis::cmd("PEXPIRE");
        match node.server.send(probe.arg(key).arg(1)).await {
            Err(error) => match Next::after(&error) {
                Next::Later | Next::Lost | Next::Silent => Err(error),
                // It answers, if only to say that we may not, or where the slot went.
                Next::Elsewhere { .. } | Next::End => Ok(()),
            },
            Ok(_) => Ok(()),
        }
    }

    /// A primary to listen to: whatever is published on one node is heard on each.
    pub(super) fn speaker(&self) -> RedisResult<Arc<Node>> {
        let slots = self.slots();
        let rng = &mut rand::rng();
        let sound = slots.primaries().filter(|node| node.doubted().is_none());
        let node = sound.choose(rng).or_else(|| slots.primaries().choose(rng));
        let nobody =
            || RedisError::from((ErrorKind::ClusterConnectionNotFound, "no primary is known"));
        node.cloned().ok_or_else(nobody)
    }

    /// What was asked of this node, and is no operation, failed. One that does not permit it is sound.
    pub(super) fn failed(self: &Arc<Self>, node: &Node, error: &RedisError) {
        let next = Next::after(error);
        if !matches!(next, Next::End) {
            node.judge(Some(&next));
            self.start_looking();
        }
    }

    /// Waits until this node is known to be no primary any more. It may have left, and hear nothing.
    pub(super) async fn without(&self, node: &Node) {
        let mut looking = self.looking.subscribe();
        while self
            .slots()
            .primaries()
            .any(|primary| primary.place == node.place)
        {
            if looking.changed().await.is_err() {
                // The sender lives in `self`.
                return;
            }
        }
    }

    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        self.slots().owner(slot).cloned()
    }

    fn slots(&self) -> Arc<Slots<Arc<Node>>> {
        // Nothing is done under the lock but to exchange the list.
        Arc::clone(&self.slots.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn nodes(&self) -> MutexGuard<'_, HashMap<Place, Arc<Node>>> {
        // Nothing is done under the lock that could leave the map in disorder.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at this place. Its connection is made when it is needed.
    fn node(&self, place: &Place) -> RedisResult<Arc<Node>> {
        let mut nodes = self.nodes();
        if let Some(node) = nodes.get(place) {
            return Ok(Arc::clone(node));
        }
        let info = self.template.clone().set_addr(place.like(&self.template));
        let source = Source::node(info, self.patience)?;
        let node = Arc::new(Node {
            place: place.clone(),
            server: Server::new(source, self.runtime.clone()),
            doubted: AtomicU8::new(0),
        });
        nodes.insert(place.clone(), Arc::clone(&node));
        Ok(node)
    }
}

impl Node {
    /// What to think of the node after this outcome of an operation.
    fn judge(&self, failure: Option<&Next>) {
        match failure {
            None => self.doubt(None),
            Some(Next::Elsewhere { asking: false } | Next::Later) => {
                self.doubt(Some(Doubt::Refused));
            }
            Some(Next::Lost | Next::Silent) => self.doubt(Some(Doubt::Silent)),
            // It is where the slot was, or refuses what any node would.
            Some(Next::Elsewhere { asking: true } | Next::End) => {}
        }
    }

    /// What a look should hold against it. It orders nothing else.
    pub(super) fn doubt(&self, doubt: Option<Doubt>) {
        // Nearly always it is so already, and reading takes the line from nobody.
        if self.doubted() != doubt {
            let number = doubt.map_or(0, |doubt| 1 + doubt as u8);
            self.doubted.store(number, Ordering::Relaxed);
        }
    }

    fn doubted(&self) -> Option<Doubt> {
        match self.doubted.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Doubt::Silent),
            _ => Some(Doubt::Refused),
        }
    }
}

/// What is to be done after an error.
enum Next {
    /// Nothing was executed: the slot is on another node.
    Elsewhere {
        asking: bool,
    },
    /// Nothing was executed: the node cannot at the moment.
    Later,
    /// The connection broke, and nobody knows what was executed.
    Lost,
    /// The node says nothing, and nobody knows what was executed.
    Silent,
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
            // The node is no primary any more; whoever is will be found.
            _ if code(error) == Some(READONLY) => Self::Later,
            _ if error.is_connection_dropped() => Self::Lost,
            _ if error.is_io_error() || error.is_unrecoverable_error() => Self::Silent,
            _ => Self::End,
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_refused_is_told_from_what_was_lost() {
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
        assert!(matches!(io(std::io::ErrorKind::TimedOut), Next::Silent));
    }
}
