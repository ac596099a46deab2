//! The way to a Cluster.
//!
//! 1. Each node has a connection of its own, which mends itself as the one to a single server does. A node that is
//!    down or silent stops the verbs for its own slots, and no others.
//! 2. Who has which slot is asked of a few nodes at once, by one task for all verbs, and not again within a
//!    tenth of a second.
//! 3. What a node refuses because the slot is elsewhere, or nowhere at the moment, was not executed: the verb is sent
//!    again, a bounded number of times. What was sent and never answered is another matter; see [`Cluster::run`].
//!
//! The crate's own client does not replace a connection that is silent, so that a node whose machine vanished is
//! asked for as long as the system keeps the connection, and stops the verbs for all nodes while it connects to one.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::select_ok;
use rand::seq::SliceRandom as _;
use redis::{ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    address::Address,
    error::{READONLY, code},
    link::Server,
    script::Call,
    slots::{Place, SLOTS, parse, slot},
    source::{Patience, Source},
};

/// How often a verb is sent at most.
const ATTEMPTS: u32 = 6;
/// Before the first repetition to the same node; twice as much before each one after it. All of them together are
/// well under the engine's store time-out.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two questions for the slots.
const REST: Duration = Duration::from_millis(100);
/// How many nodes are asked for the slots at once.
const ASKED: usize = 3;

/// The nodes, and who has which slot.
pub(super) struct Cluster {
    /// What all nodes have in common: credentials and TLS.
    template: ConnectionInfo,
    patience: Patience,
    seeds: HashSet<Place>,
    nodes: Mutex<HashMap<Place, Arc<Node>>>,
    ranges: RwLock<Arc<Vec<Range>>>,
    looking: watch::Sender<Looking>,
    runtime: Handle,
}

/// One node of a Cluster.
pub(super) struct Node {
    place: Place,
    pub(super) server: Arc<Server>,
}

/// Slots, and the primary that has them.
struct Range {
    first: u16,
    last: u16,
    primary: Arc<Node>,
}

#[derive(Clone, Copy, PartialEq)]
enum Looking {
    /// Whoever needs to know starts the next question.
    Idle,
    Asking,
    /// What is known is new.
    Resting,
}

/// Where a node sent a verb.
struct Redirection {
    node: Arc<Node>,
    /// The slot is on its way there, and the node has to be told that the verb knows.
    asking: bool,
}

impl Cluster {
    /// Asks the given nodes for the others.
    pub(super) async fn connect(
        seeds: Vec<ConnectionInfo>,
        patience: Patience,
    ) -> RedisResult<Arc<Self>> {
        let no_node = || RedisError::from((ErrorKind::InvalidClientConfig, "no node was given"));
        let template = seeds.first().cloned().ok_or_else(no_node)?;
        let places = seeds.iter().filter_map(|seed| Place::of(seed.addr()));
        let cluster = Arc::new(Self {
            template,
            patience,
            seeds: places.collect(),
            nodes: Mutex::default(),
            ranges: RwLock::default(),
            looking: watch::Sender::new(Looking::Idle),
            runtime: Handle::current(),
        });
        for seed in &cluster.seeds {
            cluster.node(seed)?;
        }
        cluster.primaries().await?;
        Ok(cluster)
    }

    /// Asks who has the slots, and gives the primaries that have any.
    pub(super) async fn primaries(&self) -> RedisResult<Vec<Arc<Node>>> {
        self.look().await?;
        let mut seen = HashSet::new();
        let ranges = self.ranges();
        let nodes = ranges.iter().map(|range| &range.primary);
        Ok(nodes
            .filter(|node| seen.insert(&node.place))
            .cloned()
            .collect())
    }

    /// Runs a script where its record is. `repeat`: it may be sent once more when its reply was lost, because running
    /// it twice is the same as running it once. If that fails too, the first error stands: what was asked may have
    /// been done, whatever a node says of the repetition.
    pub(super) async fn run(self: &Arc<Self>, call: &Call<'_>, repeat: bool) -> RedisResult<Value> {
        let slot = slot(call.record());
        let (mut to, mut lost) = (None, None);
        let mut attempt = 1;
        loop {
            let (node, reply) = self.attempt(call, slot, to.take()).await;
            let error = match reply {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = attempt < ATTEMPTS;
            match Next::after(&error) {
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
        let ranges = self.ranges();
        let has = |slot: u16| {
            let mut ranges = ranges.iter();
            ranges.any(|range| {
                range.primary.place == node.place && (range.first..=range.last).contains(&slot)
            })
        };
        let mut keys = (0..u32::from(SLOTS) * 64).map(|n| format!("{prefix}served-{n}"));
        let Some(key) = keys.find(|key| has(slot(key.as_bytes()))) else {
            return Ok(());
        };
        // A write that changes nothing: there is no such key, and reads may be served where writes are not.
        let mut probe = redis::cmd("PEXPIRE");
        match node.server.send(probe.arg(key).arg(1)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ClusterDown) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let ranges = self.ranges();
        let at = ranges.partition_point(|range| range.last < slot);
        let range = ranges.get(at).filter(|range| range.first <= slot)?;
        Some(Arc::clone(&range.primary))
    }

    fn ranges(&self) -> Arc<Vec<Range>> {
        // Nothing is done under the lock but to exchange the list.
        Arc::clone(&self.ranges.read().unwrap_or_else(PoisonError::into_inner))
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
        let source = Source::new(Address::Single(info), self.patience)?;
        let node = Arc::new(Node {
            place: place.clone(),
            server: Server::new(Arc::new(source)),
        });
        nodes.insert(place.clone(), Arc::clone(&node));
        Ok(node)
    }
}

/// Looking who has the slots.
impl Cluster {
    /// Waits until what is known is new, with an end to its patience.
    async fn looked(self: &Arc<Self>) {
        self.start_looking();
        let mut looking = self.looking.subscribe();
        let new = looking.wait_for(|looking| *looking != Looking::Asking);
        // Whoever waited goes on with what is known, new or not.
        let _late = timeout(self.patience.connect, new).await;
    }

    /// Starts to look, unless somebody does, or just did. It goes on when the verb that started it is dropped.
    fn start_looking(self: &Arc<Self>) {
        let start = self.looking.send_if_modified(|looking| {
            let idle = *looking == Looking::Idle;
            if idle {
                *looking = Looking::Asking;
            }
            idle
        });
        if !start {
            return;
        }
        let round = Round(Arc::clone(self));
        self.runtime.spawn(async move {
            if let Err(error) = round.0.look().await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "no node of the Redis Cluster says who has the slots");
            }
            round.0.looking.send_replace(Looking::Resting);
            sleep(REST).await;
        });
    }

    /// Asks a few nodes at once, and the next few when none of them answers.
    async fn look(&self) -> RedisResult<()> {
        let mut nodes: Vec<_> = self.nodes().values().cloned().collect();
        // No node is asked by everybody first. The quickest of the few is believed.
        nodes.shuffle(&mut rand::rng());
        let mut failed = RedisError::from((ErrorKind::Io, "no node is known"));
        for few in nodes.chunks(ASKED) {
            let answers = few.iter().map(|node| Box::pin(self.slots_of(node)));
            match select_ok(answers).await {
                Ok((ranges, _)) => {
                    self.learn(ranges);
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Who has the slots, as this node sees it.
    async fn slots_of(&self, node: &Node) -> RedisResult<Vec<Range>> {
        let mut slots = redis::cmd("CLUSTER");
        let told = parse(node.server.send(slots.arg("SLOTS")).await?, &node.place);
        let ranges = told.into_iter().map(|(first, last, place)| {
            let primary = self.node(&place)?;
            Ok(Range {
                first,
                last,
                primary,
            })
        });
        let mut ranges = ranges.collect::<RedisResult<Vec<_>>>()?;
        if ranges.is_empty() {
            return Err((ErrorKind::Io, "the node knows no slots").into());
        }
        ranges.sort_by_key(|range| range.last);
        Ok(ranges)
    }

    fn learn(&self, ranges: Vec<Range>) {
        let mut nodes = self.nodes();
        nodes.retain(|place, _| {
            let mut primaries = ranges.iter().map(|range| &range.primary.place);
            self.seeds.contains(place) || primaries.any(|primary| primary == place)
        });
        drop(nodes);
        let mut known = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(ranges);
    }
}

/// A question under way. However it ends, by a panic too, the next one can start.
struct Round(Arc<Cluster>);

impl Drop for Round {
    fn drop(&mut self) {
        self.0.looking.send_replace(Looking::Idle);
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
