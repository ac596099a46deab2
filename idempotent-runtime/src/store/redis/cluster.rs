//! The link to a Cluster: the cluster client of the `redis` crate, and what a store needs beside it.
//!
//! The client knows which node owns each slot, has one connection per node, makes broken ones again, and reads the slots
//! anew when a node says that they have moved. What is done here:
//!
//! 1. **Repetition.** The client sends nothing again (`retries(0)`): it cannot tell an operation that a node refused from
//!    one whose reply was lost, and an acquire or a release whose reply was lost must not be repeated here (contract,
//!    rule 3). [`Cluster::run`] repeats what was not executed, and after a loss what may be executed twice.
//! 2. **Silence.** The client keeps a connection over which no reply comes, and does not look for the slots' next owner.
//!    So an operation without a reply has the whole connection replaced. The old one serves meanwhile.
//! 3. **Identity.** Addresses are reused, among containers above all, and the client would follow a node of another
//!    Cluster, which accepts the claims. So each primary is asked, over a connection of its own, which nodes it sees and how
//!    it keeps what it acknowledges: when a connection to it was lost, before the next operation is sent there; when the
//!    whole connection is replaced; and once a minute. See [`nodes`](super::nodes).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use rand::seq::IteratorRandom as _;
use redis::{
    ConnectionInfo, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    cluster::NodeAddress,
    cluster_routing::{Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

use super::{
    durability::Durability,
    error::{READONLY, code, more_specific},
    nodes::{Nodes, address, another_cluster, slots},
    script::{Call, no_script},
    server::{Server, is_broken},
    shared::Shared,
    source::{Source, TimeOuts},
    topology::View,
    wakeup::no_primary,
};
use crate::store::weakness::Accepted;

/// How often an operation is sent at most.
const ATTEMPTS: u32 = 6;
/// The pause before the second repetition; it doubles with each further one.
const PAUSE: Duration = Duration::from_millis(20);
/// After this time an operation is not sent again, so that the last reply comes before the engine's time-out, which is
/// 2 s by default.
const REPEATED: Duration = Duration::from_secs(1);
/// The time between two comparisons of the nodes with the known ones, in a store in use. Jittered.
const INTERVAL: Duration = Duration::from_secs(60);
/// The shortest time between two such comparisons.
const REST: Duration = Duration::from_millis(200);

/// The link to the nodes.
pub(super) struct Cluster {
    shared: Arc<Shared<Nodes>>,
    runtime: Handle,
    opened: Instant,
    /// The age of the store, in milliseconds, at which the nodes were last compared, and that at which they are next.
    compared: AtomicU64,
    due: AtomicU64,
    /// Held by the comparison that is running.
    comparing: Arc<tokio::sync::Mutex<()>>,
    /// The node to which an operation was last redirected because its slot is being moved there.
    importing: Mutex<Option<(NodeAddress, Arc<Server>)>>,
}

impl Cluster {
    /// A Cluster by some of its nodes. Sends nothing yet.
    pub(super) fn of(
        seeds: Vec<ConnectionInfo>,
        time_outs: TimeOuts,
        runtime: Handle,
    ) -> RedisResult<Arc<Self>> {
        if seeds.is_empty() {
            return Err((ErrorKind::InvalidClientConfig, "no node was given").into());
        }
        let nodes = Nodes::new(seeds, time_outs);
        Ok(Arc::new(Self {
            shared: Shared::new(nodes, runtime.clone()),
            runtime,
            opened: Instant::now(),
            compared: AtomicU64::new(0),
            due: AtomicU64::new(millis(jittered(INTERVAL))),
            comparing: Arc::default(),
            importing: Mutex::default(),
        }))
    }

    /// The most complete view of the nodes of the URL: any of them if several are as complete.
    pub(super) async fn view(&self) -> RedisResult<View> {
        let nodes = self.nodes();
        let asked = nodes.seeds().iter().map(async |seed| {
            let source = Source::node(seed.clone(), nodes.time_outs())?;
            let server = Server::new(source, self.runtime.clone());
            let answer = server.send(&slots()).await?;
            let host = address(seed);
            let view = View::read(answer, host.as_ref().map(NodeAddress::host));
            if view.primaries().is_empty() {
                return Err((ErrorKind::Io, "the node reported no slots").into());
            }
            Ok(view)
        });
        let (mut views, mut failed) = (Vec::new(), None);
        for answer in join_all(asked).await {
            match answer {
                Ok(view) => views.push(view),
                Err(error) => failed = Some(more_specific(failed, error)),
            }
        }
        let fewest = views.iter().map(|view| view.gaps().count()).min();
        let complete = views
            .into_iter()
            .filter(|view| Some(view.gaps().count()) == fewest);
        let no_node = || RedisError::from((ErrorKind::Io, "no node is known"));
        complete
            .choose(&mut rand::rng())
            .ok_or_else(|| failed.unwrap_or_else(no_node))
    }

    /// From now on this node is compared with what it said when the store was opened.
    pub(super) fn know(&self, node: NodeAddress, said: &Durability, accepted: Accepted) {
        self.nodes().know(node, said, accepted);
    }

    /// Connects, after the primaries of this view were probed.
    pub(super) async fn open(&self, view: View, accepted: Accepted) -> RedisResult<()> {
        self.nodes().open(view, accepted);
        self.shared.connection().await.map(drop)
    }

    /// A link to each primary, as the nodes of the URL know them now. As they were last known, if none of those answers.
    pub(super) async fn primaries(&self) -> RedisResult<Vec<Arc<Server>>> {
        let known = self.nodes().known();
        let view = match self.view().await {
            Ok(view) if !view.is_of(&known) => return Err(another_cluster()),
            Ok(view) => Arc::new(view),
            // The primaries themselves say why, if they do not answer either.
            Err(_) => known,
        };
        let primaries = view.primaries().into_iter();
        primaries.map(|node| self.server(node)).collect()
    }

    /// A link to this node alone.
    pub(super) fn server(&self, address: &NodeAddress) -> RedisResult<Arc<Server>> {
        let source = self.source_of(Some(address))?;
        Ok(Server::new(source, self.runtime.clone()))
    }

    /// Runs a script on the node of its record. `after_loss`: it may be sent once more when its reply was lost, as in
    /// [`Link::run`](super::link::Link::run). If that fails too, the first error is returned: the first call may have
    /// been executed, whatever a node answers to the repetition.
    pub(super) async fn run(
        self: &Arc<Self>,
        call: &Call<'_>,
        after_loss: bool,
    ) -> RedisResult<Value> {
        let mut lost = None;
        let (mut attempt, begun) = (1, Instant::now());
        loop {
            if self.nodes().has_refused() {
                // Nothing else may look whether a known node is back: not every store has a listener.
                self.compare_soon();
            }
            let error = match self.send(call).await {
                Ok(value) => {
                    self.compare_if_due();
                    return Ok(value);
                }
                Err(error) => error,
            };
            let next = Next::after(&error);
            if next == Next::Lost {
                // The client makes the connection again by itself, to whatever has the address now.
                self.nodes().doubt(call.record());
            }
            if next != Next::End {
                self.compare_soon();
            }
            let again = attempt < ATTEMPTS && begun.elapsed() < REPEATED;
            match next {
                Next::Refused if again => {}
                Next::NotSent if again && after_loss => lost = lost.or(Some(error)),
                Next::Lost if again && after_loss && lost.is_none() => lost = Some(error),
                _ => return Err(lost.unwrap_or(error)),
            }
            // The client reads the slots anew before the next call; only if that was too early, time has to pass.
            if attempt > 1 {
                let pause = PAUSE * 2_u32.saturating_pow(attempt - 2);
                sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            }
            attempt += 1;
        }
    }

    async fn send(&self, call: &Call<'_>) -> RedisResult<Value> {
        let (number, mut connection) = self.shared.connection().await?;
        if self.nodes().has_refused()
            && let Err(error) = self.permitted(call).await
        {
            if Next::after(&error) == Next::NotSent {
                self.shared.replace(number);
            }
            return Err(error);
        }
        let route = Route::with_key(call.record(), SlotAddr::Master);
        let mut exchange = async |command| {
            let owner = RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(route));
            let reply = connection.route_command(command, owner).await;
            // An error that the server sent arrives as a value.
            reply.and_then(Value::extract_error)
        };
        let reply = match exchange(call.by_hash()).await {
            Err(error) if no_script(&error) => exchange(call.by_text()).await,
            other => other,
        };
        let error = match reply {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Ask) => {
                return self.ask(call, error).await;
            }
            Err(error) => error,
            reply => return reply,
        };
        if is_broken(&error) || matches!(Next::after(&error), Next::NotSent) || is_down(&error) {
            self.shared.replace(number);
        }
        Err(error)
    }

    /// Waits until it is known whether the node of this record may be sent to, and returns an error if not.
    async fn permitted(&self, call: &Call<'_>) -> RedisResult<()> {
        let nodes = self.nodes();
        if nodes.is_doubted(call.record()) {
            // The end of the comparison that is running.
            let ended = timeout(nodes.time_outs().response, self.comparing.lock());
            drop(ended.await);
        }
        nodes.permit(call.record())
    }

    /// Runs a script on the node to which its slot is being moved. The client follows such a redirection only together
    /// with its own repetitions.
    async fn ask(&self, call: &Call<'_>, error: RedisError) -> RedisResult<Value> {
        let to = error.redirect_node();
        let Some(to) = to.and_then(|(node, _)| NodeAddress::try_from(node).ok()) else {
            return Err(error);
        };
        let server = self.importing(to)?;
        server.call(call, true).await
    }

    fn importing(&self, node: NodeAddress) -> RedisResult<Arc<Server>> {
        // The value is only replaced under the lock, so a poisoned lock is as good.
        let mut importing = self
            .importing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((address, server)) = &*importing
            && *address == node
        {
            return Ok(Arc::clone(server));
        }
        let server = self.server(&node)?;
        *importing = Some((node, Arc::clone(&server)));
        Ok(server)
    }

    /// The primary that has this record, as far as is known.
    pub(super) fn owner(&self, record: &[u8]) -> Option<NodeAddress> {
        self.nodes().known().owner(record).cloned()
    }

    /// Makes connections to this node.
    pub(super) fn source_of(&self, node: Option<&NodeAddress>) -> RedisResult<Arc<Source>> {
        self.nodes().source(node.ok_or_else(no_primary)?)
    }

    /// Waits until this holds, which is asked whenever the nodes were compared with the known ones.
    pub(super) async fn until(&self, holds: impl Fn() -> bool) {
        let mut known = self.nodes().subscribe();
        // An error is not possible: the sender lives in `self`.
        while !holds() && known.changed().await.is_ok() {}
    }

    /// Compares the nodes with the known ones if that is due.
    pub(super) fn compare_if_due(self: &Arc<Self>) {
        if self.age() > self.due.load(Ordering::Relaxed) {
            self.compare_soon();
        }
    }

    /// Compares the nodes with the known ones, unless that was done just now. It goes on when the operation that started
    /// it is dropped, and ends by itself.
    pub(super) fn compare_soon(self: &Arc<Self>) {
        let (age, order) = (self.age(), Ordering::Relaxed);
        let Ok(running) = Arc::clone(&self.comparing).try_lock_owned() else {
            return;
        };
        let last = self.compared.load(order);
        // No other memory depends on the two numbers.
        if last != 0 && age < last + millis(REST) {
            self.due.fetch_min(last + millis(REST), order);
            return;
        }
        self.compared.store(age.max(1), order);
        self.due.store(age + millis(jittered(INTERVAL)), order);
        let cluster = Arc::clone(self);
        self.runtime.spawn(async move {
            let compared = async {
                let (_, connection) = cluster.shared.connection().await?;
                cluster.nodes().compare(connection).await
            };
            if let Err(error) = compared.await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "the nodes of the Redis Cluster were not compared");
            }
            drop(running);
        });
    }

    fn nodes(&self) -> &Nodes {
        self.shared.source()
    }

    /// Milliseconds since the store was opened.
    fn age(&self) -> u64 {
        millis(self.opened.elapsed())
    }
}

/// Between half of the duration and all of it, so that the processes of a service do not all ask at once.
fn jittered(most: Duration) -> Duration {
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the node serves no slot at the moment. The client goes on asking it.
fn is_down(error: &RedisError) -> bool {
    use ServerErrorKind::{ClusterDown, MasterDown};
    matches!(error.kind(), ErrorKind::Server(ClusterDown | MasterDown))
}

/// What to do after an error.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    /// A node refused the call without executing it: the slot is on another node, or not served at the moment.
    Refused,
    /// The call was not executed, or an earlier one on its way was cut off by an error of the client's own, such as one
    /// of reading the slots. The client tells both in the same way.
    NotSent,
    /// The connection broke: it is unknown whether the call was executed.
    Lost,
    End,
}

impl Next {
    pub(super) fn after(error: &RedisError) -> Self {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, TryAgain};
        match error.kind() {
            // Only scripts get these: the client's own commands have no key.
            ErrorKind::Server(Moved | Ask | TryAgain | ClusterDown) => Self::Refused,
            ErrorKind::Server(MasterDown | BusyLoading) | ErrorKind::ClusterConnectionNotFound => {
                Self::NotSent
            }
            // The node is not a primary any more.
            _ if code(error) == Some(READONLY) => Self::Refused,
            _ if error.is_connection_dropped() => Self::Lost,
            _ => Self::End,
        }
    }
}

#[cfg(test)]
mod faults;
