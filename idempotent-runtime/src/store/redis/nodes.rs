//! The nodes of a Cluster: connections to them, and whether they are those that the store was opened on.
//!
//! 1. A primary is recognised by the ids of the nodes that it sees. One that sees no known node is of another Cluster.
//!    Which nodes are known changes as nodes are added and removed one after the other.
//! 2. A primary is also compared with what it said of its durability, as a [single server](super::identity) is.
//! 3. While an answer is of another Cluster, no operation is carried out: the client follows the slots that any node
//!    reports. A primary with weaknesses that were not accepted gets no operation; the others go on.
//! 4. A primary to which a connection was lost is in doubt until it has answered.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use rand::seq::IteratorRandom as _;
use redis::{
    Cmd, ConnectionInfo, ErrorKind, RedisError, RedisResult, Value,
    cluster::{ClusterClient, NodeAddress},
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};
use tokio::{sync::watch, time::timeout};

use super::{
    durability::{Durability, REPLIES, questions},
    error::more_specific,
    identity::Identity,
    shared::Connect,
    source::{Source, TimeOuts, tcp, within},
    topology::{View, node_like},
    wakeup::no_primary,
};
use crate::store::weakness::Accepted;

/// How long other answers are waited for after the first one.
const GRACE: Duration = Duration::from_millis(200);

/// What all connections to the Cluster have in common.
pub(super) struct Nodes {
    seeds: Vec<ConnectionInfo>,
    time_outs: TimeOuts,
    /// The last view of this Cluster.
    known: watch::Sender<Arc<View>>,
    accepted: OnceLock<Accepted>,
    /// Whether there is anything in `trust` that stops an operation.
    refused: AtomicBool,
    trust: Mutex<Trust>,
}

#[derive(Default)]
struct Trust {
    /// Whether an answer was last that of another Cluster.
    foreign: bool,
    /// Primaries that have to answer before anything is sent to them.
    doubted: HashSet<NodeAddress>,
    /// Primaries on which the store would not be opened, and why.
    weak: HashMap<NodeAddress, RedisError>,
    identities: HashMap<NodeAddress, Arc<Identity>>,
}

/// What one node answers; the address is `None` for the one that the client chose.
type Answer = (Option<NodeAddress>, View, Option<Durability>);

impl Connect for Nodes {
    type Connection = ClusterConnection;

    async fn connect(&self) -> RedisResult<ClusterConnection> {
        let time_outs = self.time_outs;
        let known = self.known();
        // The seeds may all be gone.
        let seeds: HashSet<_> = self.seeds.iter().filter_map(address).collect();
        let others = known.nodes().filter(|node| !seeds.contains(node));
        let others = others.map(|node| self.node(node));
        let nodes = self.seeds.iter().cloned().chain(others);
        let client = ClusterClient::builder(nodes)
            .retries(0)
            .connection_timeout(time_outs.connect)
            // Also the time-out of a whole operation: of waiting for the slots to be read, and for a connection.
            .response_timeout(time_outs.response)
            .tcp_settings(tcp())
            .build()?;
        // The nodes of the URL are connected to at once, and then all others.
        let attempt = time_outs.connect.saturating_mul(4);
        within(attempt, async {
            let connection = client.get_async_connection().await?;
            self.compare(connection.clone()).await?;
            Ok(connection)
        })
        .await
    }
}

impl Nodes {
    pub(super) fn new(seeds: Vec<ConnectionInfo>, time_outs: TimeOuts) -> Self {
        Self {
            seeds,
            time_outs,
            known: watch::Sender::default(),
            accepted: OnceLock::new(),
            refused: AtomicBool::new(false),
            trust: Mutex::default(),
        }
    }

    pub(super) fn seeds(&self) -> &[ConnectionInfo] {
        &self.seeds
    }

    pub(super) fn time_outs(&self) -> TimeOuts {
        self.time_outs
    }

    /// The last view of this Cluster.
    pub(super) fn known(&self) -> Arc<View> {
        self.known.borrow().clone()
    }

    /// Is told of each view.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.known.subscribe()
    }

    /// Makes connections to this node.
    pub(super) fn source(&self, node: &NodeAddress) -> RedisResult<Arc<Source>> {
        Source::node(self.node(node), self.time_outs)
    }

    fn node(&self, address: &NodeAddress) -> ConnectionInfo {
        node_like(&self.seeds[0], address)
    }

    /// From now on this node is compared with what it said when the store was opened.
    pub(super) fn know(&self, node: NodeAddress, said: &Durability, accepted: Accepted) {
        let identity = Identity::new(0, false);
        identity.know(said, accepted);
        self.trust().identities.insert(node, Arc::new(identity));
    }

    /// The store is open: this is its Cluster.
    pub(super) fn open(&self, view: View, accepted: Accepted) {
        // It is opened once.
        let _ = self.accepted.set(accepted);
        self.known.send_replace(Arc::new(view));
    }

    /// Whether some operations are not carried out.
    pub(super) fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The primary of this record has to answer before anything is sent to it.
    pub(super) fn doubt(&self, record: &[u8]) {
        if let Some(owner) = self.known().owner(record) {
            self.change(|trust| {
                trust.doubted.insert(owner.clone());
            });
        }
    }

    pub(super) fn is_doubted(&self, record: &[u8]) -> bool {
        let known = self.known();
        let owner = known.owner(record);
        owner.is_some_and(|owner| self.trust().doubted.contains(owner))
    }

    /// An error if no operation on this record is carried out at the moment.
    pub(super) fn permit(&self, record: &[u8]) -> RedisResult<()> {
        let known = self.known();
        let trust = self.trust();
        if trust.foreign {
            return Err(another_cluster());
        }
        let Some(owner) = known.owner(record) else {
            return Ok(());
        };
        if trust.doubted.contains(owner) {
            let what = "the node has not answered since a connection to it was lost";
            return Err((ErrorKind::ClusterConnectionNotFound, what).into());
        }
        trust.weak.get(owner).cloned().map_or(Ok(()), Err)
    }

    /// Compares the nodes with the known ones. An error if one is of another Cluster.
    pub(super) async fn compare(&self, connection: ClusterConnection) -> RedisResult<()> {
        let known = self.known();
        let answers = self.answers(&known, connection).await?;
        let of_this = |(_, view, _): &&Answer| view.is_of(&known);
        let views = answers.iter().filter(of_this).map(|(_, view, _)| view);
        let views = views.filter(|view| !view.primaries().is_empty());
        let fewest = views.clone().map(|view| view.gaps().count()).min();
        let complete = views.filter(|view| Some(view.gaps().count()) == fewest);
        if let Some(view) = complete.choose(&mut rand::rng()) {
            self.known.send_replace(Arc::new(view.clone()));
        }
        let foreign = answers.iter().find(|answer| !of_this(answer));
        let was = self.change(|trust| std::mem::replace(&mut trust.foreign, foreign.is_some()));
        if let Some((node, view, _)) = foreign {
            if !was {
                tracing::error!(
                    node = node.as_ref().map(ToString::to_string),
                    nodes = ?view.primaries(),
                    "a server behind an address of this Redis Cluster belongs to another Cluster, whose records are \
                     others: no operation is carried out. If the Cluster was replaced, open the store again"
                );
            }
            return Err(another_cluster());
        }
        for (node, _, said) in answers {
            if let (Some(node), Some(said)) = (node, said) {
                self.judge(node, said);
            }
        }
        self.forget();
        Ok(())
    }

    /// Compares what a primary says with what it said before.
    fn judge(&self, node: NodeAddress, said: Durability) {
        let identity = {
            let mut trust = self.trust();
            let accepted = self.accepted.get().copied().unwrap_or_default();
            // One that has taken over since.
            let new = || Arc::new(Identity::accepting(accepted));
            Arc::clone(trust.identities.entry(node.clone()).or_insert_with(new))
        };
        let compared = identity.compare(said);
        self.change(|trust| {
            trust.doubted.remove(&node);
            match compared {
                Ok(()) => trust.weak.remove(&node),
                Err(error) => trust.weak.insert(node, error),
            }
        });
    }

    /// Forgets those that are no primaries any more.
    fn forget(&self) {
        let known = self.known();
        let primaries = known.primaries();
        self.change(|trust| {
            trust.doubted.retain(|node| primaries.contains(node));
            trust.weak.retain(|node, _| primaries.contains(node));
            trust.identities.retain(|node, _| primaries.contains(node));
        });
    }

    /// The answers of the known primaries, and of a node that the client chooses: those may all be gone.
    async fn answers(
        &self,
        known: &View,
        mut connection: ClusterConnection,
    ) -> RedisResult<Vec<Answer>> {
        let primaries = known.primaries().into_iter().cloned();
        let any = async {
            let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
            let answer = connection.route_command(slots(), any).await;
            let view = View::read(answer.and_then(Value::extract_error)?, None);
            Ok((None, view, None))
        };
        let asked = primaries.map(|node| self.ask(node).boxed());
        let mut asked: FuturesUnordered<_> = asked.chain([any.boxed()]).collect();
        let (mut answers, mut failed) = (Vec::new(), None);
        while answers.is_empty() {
            match asked.next().await {
                Some(Ok(answer)) => answers.push(answer),
                Some(Err(error)) => failed = Some(more_specific(failed, error)),
                None => return Err(failed.unwrap_or_else(no_primary)),
            }
        }
        // One that does not answer now serves nothing either.
        let rest = async {
            while let Some(answer) = asked.next().await {
                answers.extend(answer);
            }
        };
        // Out of time is as good as at the end.
        let _ = timeout(GRACE, rest).await;
        Ok(answers)
    }

    async fn ask(&self, node: NodeAddress) -> RedisResult<Answer> {
        let response = self.time_outs.response;
        let mut connection = self.source(&node)?.connect(response).await?;
        let mut both = questions();
        both.add_command(slots());
        let mut replies = connection
            .send_packed_commands(&both, 0, REPLIES + 1)
            .await?;
        let view = replies.pop().unwrap_or(Value::Nil).extract_error()?;
        let view = View::read(view, Some(node.host()));
        Ok((Some(node), view, Some(Durability::read(replies)?)))
    }

    /// Changes what is trusted.
    fn change<T>(&self, change: impl FnOnce(&mut Trust) -> T) -> T {
        let mut trust = self.trust();
        let result = change(&mut trust);
        let refused = trust.foreign || !trust.doubted.is_empty() || !trust.weak.is_empty();
        self.refused.store(refused, Ordering::Relaxed);
        result
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        // It is consistent whenever the lock is free, so a poisoned lock is as good.
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn slots() -> Cmd {
    let mut slots = redis::cmd("CLUSTER");
    slots.arg("SLOTS");
    slots
}

pub(super) fn address(node: &ConnectionInfo) -> Option<NodeAddress> {
    NodeAddress::try_from(node.addr()).ok()
}

pub(super) fn another_cluster() -> RedisError {
    let what = "a node belongs to another Cluster: open the store again";
    (ErrorKind::Client, what).into()
}
