//! Topology refresh: discovers which node owns each slot.
//!
//! 1. One task refreshes for all operations. An operation that failed on a node starts it. So do operations and the
//!    listener once a minute, so that the store keeps up with a Cluster whose nodes are all replaced one by one.
//! 2. A few nodes are asked at once, and all others if those do not answer or their views are doubtful: known primaries
//!    and the URL's nodes before replicas, and nodes on which an operation failed last. [`NodeView::best`] chooses a
//!    view.
//! 3. A refresh without a sound view (no answer, gaps, or primaries on which an operation failed) is followed by a
//!    longer rest than a successful one, because the other nodes take seconds to notice a failure.
//! 4. A view without any known node is not one of this Cluster: addresses are reused, and another Cluster would accept
//!    the claims. Nodes are recognised by their ids, which never change.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rand::seq::SliceRandom as _;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::time::{Instant, timeout};

use super::{Cluster, Node};
use crate::store::redis::{
    error::more_specific,
    slots::{Doubt, Gaps, NodeAddress, NodeView},
};

/// The rest between two refreshes. It doubles after each failure, up to [`MAX_REST`], with jitter so that the processes
/// of a service do not all ask at once.
const REST: Duration = Duration::from_millis(100);
const MAX_REST: Duration = Duration::from_secs(2);
/// The time between two periodic refreshes of a store in use. Jittered too.
const INTERVAL: Duration = Duration::from_secs(60);
/// How many nodes are asked at once.
const ASKED: usize = 3;
/// When this many of them have the same sound view, the others are not waited for.
const AGREED: usize = 2;
/// How long to wait for the next answer before asking more nodes.
const SLOW: Duration = Duration::from_millis(100);
/// How long an operation waits for a refresh at most, and how long a refresh waits for a better view than that of a
/// single node, or than one with doubted primaries.
pub(super) const REFRESH_WAIT: Duration = Duration::from_millis(250);
/// How long a refresh waits for a better view than one with gaps, or for a second view if the known map was sound.
const LONG: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum Refresh {
    Running,
    /// The known map counts as current until then.
    Idle {
        until: Instant,
        /// The failed refreshes since the last successful one.
        failures: u32,
    },
}

impl Refresh {
    /// Before the first refresh.
    pub(super) fn first() -> Self {
        Self::Idle {
            until: Instant::now(),
            failures: 0,
        }
    }
}

impl Cluster {
    /// Refreshes the topology and returns the primaries.
    pub(in super::super) async fn primaries(&self) -> RedisResult<Vec<Arc<Node>>> {
        self.refresh().await?;
        let mut seen = HashSet::new();
        let slots = self.slots();
        let nodes = slots.primaries().filter(|node| seen.insert(&node.address));
        Ok(nodes.cloned().collect())
    }

    /// The slots without a known owner.
    pub(in super::super) fn gaps(&self) -> Gaps {
        self.slots().gaps()
    }

    /// Waits for a refresh, for [`REFRESH_WAIT`] at most.
    pub(super) async fn wait_for_refresh(self: &Arc<Self>) {
        self.start_refresh();
        let mut refresh_state = self.refresh_state.subscribe();
        let new = refresh_state.wait_for(|state| matches!(state, Refresh::Idle { .. }));
        // After a time-out the operation goes on with the known map.
        let _late = timeout(REFRESH_WAIT, new).await;
    }

    /// Starts the periodic refresh if it is due.
    pub(in super::super) fn refresh_if_due(self: &Arc<Self>) {
        // No other memory depends on it: a stale value makes a refresh a little early or late.
        if self.age() > self.due.load(Ordering::Relaxed) {
            self.start_refresh();
        }
    }

    /// Starts a refresh unless one is running or has just ended. It goes on when the operation that started it is
    /// dropped, and ends by itself.
    pub(in super::super) fn start_refresh(self: &Arc<Self>) {
        let mut before = None;
        self.refresh_state.send_if_modified(|state| match *state {
            Refresh::Idle { until, failures } if until <= Instant::now() => {
                before = Some(failures);
                *state = Refresh::Running;
                true
            }
            _ => false,
        });
        let Some(before) = before else { return };
        let task = RefreshTask {
            cluster: Arc::clone(self),
            failures: before.saturating_add(1),
        };
        self.runtime.spawn(task.run());
    }

    /// Reads the views of the nodes and applies the best one. Returns whether it is sound.
    pub(super) async fn refresh(&self) -> RedisResult<bool> {
        let (doubted, known) = (self.doubted(), self.ids().clone());
        let known = &known;
        let mut others = self.in_order(&doubted).into_iter();
        let ask = |node: Arc<Node>| async move { node.view(known).await };
        let first = others.by_ref().take(ASKED).map(ask);
        let mut asked: FuturesUnordered<_> = first.collect();
        let (mut answers, mut failed) = (Vec::new(), None);
        let (begun, mut enough_after) = (Instant::now(), Duration::MAX);
        let healthy = self.is_healthy();
        loop {
            let more = match timeout(SLOW, asked.next()).await {
                Ok(Some(Ok(view))) => {
                    let agreed = view.count_equal(&answers) + 1 >= AGREED;
                    let sound = view.is_sound(&doubted);
                    let whole = view.slots.gaps().is_empty();
                    enough_after = enough_after.min(if whole { REFRESH_WAIT } else { LONG });
                    answers.push(view);
                    if agreed && sound {
                        break;
                    }
                    !sound
                }
                Ok(Some(Err(error))) => {
                    failed = Some(more_specific(failed, error));
                    true
                }
                Ok(None) => break,
                Err(_) => {
                    let waited = begun.elapsed();
                    // If the known map is sound, the view of a single node is used only after a long wait for others.
                    let alone = healthy && answers.len() < AGREED && waited < LONG;
                    if waited >= enough_after && !alone {
                        break;
                    }
                    true
                }
            };
            if more {
                asked.extend(others.by_ref().take(ASKED).map(ask));
            }
        }
        let no_node = || RedisError::from((ErrorKind::Io, "no node is known"));
        let Some(view) = NodeView::best(answers, &doubted) else {
            return Err(failed.unwrap_or_else(no_node));
        };
        let sound = view.is_sound(&doubted);
        self.apply(view)?;
        Ok(sound)
    }

    /// Whether the known map is complete and has no doubted primary.
    fn is_healthy(&self) -> bool {
        let slots = self.slots();
        slots.gaps().is_empty() && slots.primaries().all(|node| node.doubted().is_none())
    }

    /// All nodes in the order in which to ask them. The order among equals is random, so that not all processes ask the
    /// same node first.
    fn in_order(&self, doubted: &HashMap<NodeAddress, Doubt>) -> Vec<Arc<Node>> {
        let slots = self.slots();
        let primaries: HashSet<_> = slots.primaries().map(|node| &node.address).collect();
        let mut nodes: Vec<_> = self.nodes().values().cloned().collect();
        nodes.shuffle(&mut rand::rng());
        nodes.sort_by_key(|node| {
            let known = self.seeds.contains(&node.address) || primaries.contains(&node.address);
            (doubted.contains_key(&node.address), !known)
        });
        nodes
    }

    fn doubted(&self) -> HashMap<NodeAddress, Doubt> {
        let nodes = self.nodes();
        let doubted = nodes.values();
        let doubted = doubted.filter_map(|node| Some((node.address.clone(), node.doubted()?)));
        doubted.collect()
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<String>> {
        // The set is only read or replaced under the lock, so a poisoned lock is as good.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a view; where it has gaps, the known map stays.
    fn apply(&self, view: NodeView) -> RedisResult<()> {
        let slots = view.slots.map(|address| self.node(&address))?;
        let slots = slots.filled(&self.slots());
        for replica in &view.replicas {
            self.node(replica)?;
        }
        let primaries: HashSet<_> = slots.primaries().map(|node| &node.address).collect();
        self.nodes().retain(|address, _| {
            self.seeds.contains(address)
                || primaries.contains(address)
                || view.replicas.contains(address)
        });
        let mut known = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(slots);
        if !view.ids.is_empty() {
            *self.ids() = view.ids;
        }
        Ok(())
    }

    /// Milliseconds since the store was opened.
    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Node {
    /// This node's view of the Cluster, whose known nodes have these ids.
    async fn view(&self, known: &HashSet<String>) -> RedisResult<NodeView> {
        let mut slots = redis::cmd("CLUSTER");
        let answer = self.server.send(slots.arg("SLOTS")).await?;
        let view = NodeView::read(answer, &self.address);
        if view.slots.primaries().next().is_none() {
            return Err((ErrorKind::Io, "the node reported no slots").into());
        }
        if !view.is_of(known) {
            tracing::warn!(
                node = %self,
                "a node of another Redis Cluster answers at the address of a node of this store's Cluster and is \
                 ignored; if the whole Cluster was replaced, open the store again"
            );
            return Err((ErrorKind::Io, "the node belongs to another Cluster").into());
        }
        Ok(view)
    }
}

/// A running refresh. However it ends, also by a panic, the next one can start.
struct RefreshTask {
    cluster: Arc<Cluster>,
    failures: u32,
}

impl RefreshTask {
    async fn run(mut self) {
        match self.cluster.refresh().await {
            Ok(true) => self.failures = 0,
            Ok(false) => {
                tracing::debug!("no node of the Redis Cluster reported a complete slot map");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "no node of the Redis Cluster reported a slot map");
            }
        }
    }
}

impl Drop for RefreshTask {
    fn drop(&mut self) {
        let until = Instant::now() + rest(self.failures);
        let due = self.cluster.age() + millis(jittered(INTERVAL));
        self.cluster.due.store(due, Ordering::Relaxed);
        let failures = self.failures;
        let idle = Refresh::Idle { until, failures };
        self.cluster.refresh_state.send_replace(idle);
    }
}

/// The rest after this many failed refreshes.
fn rest(failures: u32) -> Duration {
    match failures {
        0 => REST,
        _ => jittered(
            REST.saturating_mul(2_u32.saturating_pow(failures))
                .min(MAX_REST),
        ),
    }
}

/// Between half of the duration and all of it.
fn jittered(most: Duration) -> Duration {
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// The age at which the first periodic refresh is due.
pub(super) fn first_due() -> u64 {
    millis(jittered(INTERVAL))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_grows_to_two_seconds_with_jitter() {
        assert_eq!(rest(0), REST);
        for (failures, most) in [(1, 200), (2, 400), (4, 1600), (5, 2000), (u32::MAX, 2000)] {
            let most = Duration::from_millis(most);
            let rests: HashSet<_> = (0..100).map(|_| rest(failures)).collect();
            assert!(rests.len() > 50, "{rests:?}");
            for rest in rests {
                assert!((most / 2..=most).contains(&rest), "{failures}: {rest:?}");
            }
        }
    }
}
