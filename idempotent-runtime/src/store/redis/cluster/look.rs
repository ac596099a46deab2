//! Looking who has the slots.
//!
//! 1. One task looks for all operations. Operations that meet a node that failed them start it, and so do an operation and the
//!    listener once a minute, so that a Cluster whose nodes are all exchanged one by one is not lost sight of.
//! 2. A few nodes are asked at once, all others when those do not answer, or something speaks against what they say:
//!    known primaries and the URL's nodes before replicas, nodes that failed an operation last. [`Told::best`] says whose
//!    answer is believed.
//! 3. A look that brought no answer, or one with gaps or with nodes that failed an operation, is followed by a longer rest
//!    than a good one: what it waits for is that others notice, which takes them seconds.
//! 4. An answer that names none of the nodes that were known is none of this Cluster's: addresses change hands, and
//!    another Cluster would take our claims. The names of nodes are looked at, which they keep for ever.

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
    error::telling,
    slots::{Doubt, Gaps, Place, Told},
};

/// After a look, and before the next one. Twice as much after each one that was not good, with jitter so that the
/// processes of a service do not all ask at once, up to [`LONGEST`].
const REST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// While nothing goes wrong, and something is done. Jittered too.
const NOW_AND_THEN: Duration = Duration::from_secs(60);
/// How many nodes are asked at once.
const ASKED: usize = 3;
/// When so many of them say the same, and nothing speaks against it, the others are not waited for.
const AGREED: usize = 2;
/// How long the next answer is waited for, before others are asked.
const SLOW: Duration = Duration::from_millis(100);
/// How long an operation waits for a look at most, and a look for something better than what one node says, or than what names
/// nodes that failed.
pub(super) const LOOKED: Duration = Duration::from_millis(250);
/// How long a look waits for something better than an answer with gaps, or for a second one where all was well.
const LONG: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) enum Looking {
    Asking,
    /// What is known is as new as it can be until then.
    Resting {
        until: Instant,
        /// The looks since the last good one.
        poor: u32,
    },
}

impl Looking {
    /// Nobody looked yet.
    pub(super) fn first() -> Self {
        Self::Resting {
            until: Instant::now(),
            poor: 0,
        }
    }
}

impl Cluster {
    /// Asks who has the slots, and gives the primaries that have any.
    pub(in super::super) async fn primaries(&self) -> RedisResult<Vec<Arc<Node>>> {
        self.look().await?;
        let mut seen = HashSet::new();
        let slots = self.slots();
        let nodes = slots.primaries().filter(|node| seen.insert(&node.place));
        Ok(nodes.cloned().collect())
    }

    /// The slots that nobody is known to have.
    pub(in super::super) fn gaps(&self) -> Gaps {
        self.slots().gaps()
    }

    /// Waits until what is known is new, with an end to its patience.
    pub(super) async fn looked(self: &Arc<Self>) {
        self.start_looking();
        let mut looking = self.looking.subscribe();
        let new = looking.wait_for(|looking| matches!(looking, Looking::Resting { .. }));
        // Whoever waited goes on with what is known, new or not.
        let _late = timeout(LOOKED, new).await;
    }

    /// Looks if that was not done for a while.
    pub(in super::super) fn look_now_and_then(self: &Arc<Self>) {
        // It orders nothing else: who reads an old number looks a little early or late.
        if self.age() > self.due.load(Ordering::Relaxed) {
            self.start_looking();
        }
    }

    /// Starts to look, unless somebody does, or just did. It goes on when the operation that started it is dropped, and
    /// ends by itself.
    pub(in super::super) fn start_looking(self: &Arc<Self>) {
        let mut before = None;
        self.looking.send_if_modified(|looking| match *looking {
            Looking::Resting { until, poor } if until <= Instant::now() => {
                before = Some(poor);
                *looking = Looking::Asking;
                true
            }
            _ => false,
        });
        let Some(before) = before else { return };
        let round = Round {
            cluster: Arc::clone(self),
            poor: before.saturating_add(1),
        };
        self.runtime.spawn(round.run());
    }

    /// Asks, and says whether nothing speaks against the answer.
    pub(super) async fn look(&self) -> RedisResult<bool> {
        let (doubted, known) = (self.doubted(), self.ids().clone());
        let known = &known;
        let mut others = self.in_order(&doubted).into_iter();
        let ask = |node: Arc<Node>| async move { node.told(known).await };
        let first = others.by_ref().take(ASKED).map(ask);
        let mut asked: FuturesUnordered<_> = first.collect();
        let (mut answers, mut failed) = (Vec::new(), None);
        let (begun, mut enough_after) = (Instant::now(), Duration::MAX);
        let content = self.is_content();
        loop {
            let more = match timeout(SLOW, asked.next()).await {
                Ok(Some(Ok(told))) => {
                    let agreed = told.among(&answers) + 1 >= AGREED;
                    let sound = told.is_sound(&doubted);
                    let whole = told.slots.gaps().is_empty();
                    enough_after = enough_after.min(if whole { LOOKED } else { LONG });
                    answers.push(told);
                    if agreed && sound {
                        break;
                    }
                    !sound
                }
                Ok(Some(Err(error))) => {
                    failed = Some(telling(failed, error));
                    true
                }
                Ok(None) => break,
                Err(_) => {
                    let waited = begun.elapsed();
                    // Where all was well, one node alone is believed only when the others say nothing for long.
                    let alone = content && answers.len() < AGREED && waited < LONG;
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
        let Some(told) = Told::best(answers, &doubted) else {
            return Err(failed.unwrap_or_else(no_node));
        };
        let sound = told.is_sound(&doubted);
        self.learn(told)?;
        Ok(sound)
    }

    /// Whether nothing speaks against what is known.
    fn is_content(&self) -> bool {
        let slots = self.slots();
        slots.gaps().is_empty() && slots.primaries().all(|node| node.doubted().is_none())
    }

    /// All nodes as they are to be asked. Among equals nobody is asked by everybody first.
    fn in_order(&self, doubted: &HashMap<Place, Doubt>) -> Vec<Arc<Node>> {
        let slots = self.slots();
        let primaries: HashSet<_> = slots.primaries().map(|node| &node.place).collect();
        let mut nodes: Vec<_> = self.nodes().values().cloned().collect();
        nodes.shuffle(&mut rand::rng());
        nodes.sort_by_key(|node| {
            let known = self.seeds.contains(&node.place) || primaries.contains(&node.place);
            (doubted.contains_key(&node.place), !known)
        });
        nodes
    }

    fn doubted(&self) -> HashMap<Place, Doubt> {
        let nodes = self.nodes();
        let doubted = nodes.values();
        let doubted = doubted.filter_map(|node| Some((node.place.clone(), node.doubted()?)));
        doubted.collect()
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<String>> {
        // Nothing is done under the lock but to read or exchange the set.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was told, and of what was known only what that does not tell.
    fn learn(&self, told: Told) -> RedisResult<()> {
        let slots = told.slots.map(|place| self.node(&place))?;
        let slots = slots.filled(&self.slots());
        for replica in &told.replicas {
            self.node(replica)?;
        }
        let primaries: HashSet<_> = slots.primaries().map(|node| &node.place).collect();
        self.nodes().retain(|place, _| {
            self.seeds.contains(place) || primaries.contains(place) || told.replicas.contains(place)
        });
        let mut known = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        *known = Arc::new(slots);
        if !told.ids.is_empty() {
            *self.ids() = told.ids;
        }
        Ok(())
    }

    /// Milliseconds since the store was opened.
    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Node {
    /// What this node says of the Cluster, of which these nodes are known.
    async fn told(&self, known: &HashSet<String>) -> RedisResult<Told> {
        let mut slots = redis::cmd("CLUSTER");
        let answer = self.server.send(slots.arg("SLOTS")).await?;
        let told = Told::read(answer, &self.place);
        if told.slots.primaries().next().is_none() {
            return Err((ErrorKind::Io, "the node knows no slots").into());
        }
        if !told.is_of(known) {
            tracing::warn!(
                node = %self,
                "a node of another Redis Cluster was found where one of this store's was; if the Cluster was replaced as \
                 a whole, open the store anew"
            );
            return Err((ErrorKind::Io, "the node belongs to another Cluster").into());
        }
        Ok(told)
    }
}

/// A look under way. However it ends, by a panic too, the next one can start.
struct Round {
    cluster: Arc<Cluster>,
    poor: u32,
}

impl Round {
    async fn run(mut self) {
        match self.cluster.look().await {
            Ok(true) => self.poor = 0,
            Ok(false) => tracing::debug!("no node of the Redis Cluster knows all slots, or better"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "no node of the Redis Cluster says who has the slots");
            }
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let until = Instant::now() + rest(self.poor);
        let due = self.cluster.age() + millis(jittered(NOW_AND_THEN));
        self.cluster.due.store(due, Ordering::Relaxed);
        let poor = self.poor;
        let resting = Looking::Resting { until, poor };
        self.cluster.looking.send_replace(resting);
    }
}

/// The rest after so many looks that were not good.
fn rest(poor: u32) -> Duration {
    match poor {
        0 => REST,
        _ => jittered(REST.saturating_mul(2_u32.saturating_pow(poor)).min(LONGEST)),
    }
}

/// Half of it at least.
fn jittered(most: Duration) -> Duration {
    most.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// The age at which a look is due if there was none.
pub(super) fn first_due() -> u64 {
    millis(jittered(NOW_AND_THEN))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_grows_to_two_seconds_and_no_two_are_alike() {
        assert_eq!(rest(0), REST);
        for (poor, most) in [(1, 200), (2, 400), (4, 1600), (5, 2000), (u32::MAX, 2000)] {
            let most = Duration::from_millis(most);
            let rests: HashSet<_> = (0..100).map(|_| rest(poor)).collect();
            assert!(rests.len() > 50, "{rests:?}");
            for rest in rests {
                assert!((most / 2..=most).contains(&rest), "{poor}: {rest:?}");
            }
        }
    }
}
