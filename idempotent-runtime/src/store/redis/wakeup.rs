//! Waking waiters of this process when another process changes a record.
//!
//! 1. Each record has a channel of its own. The scripts publish there when they end a lease, so that a message reaches
//!    only processes in which somebody waits for this record. Elsewhere publishing costs a look-up.
//! 2. A process subscribes to a channel while requests of it wait for the record. It connects when the first one waits,
//!    and disconnects some time after the last one.
//! 3. Subscribe, then look: when the subscription is in force, the waiters of the record read it again. What happened
//!    before is seen by that read, what happens later is announced.
//! 4. From version 7 on, channels are sharded (`SSUBSCRIBE`): in a Cluster, a message goes to the node of the record's slot
//!    and no further. There is one connection for each node, made when a record of it is waited for.
//! 5. A connection that breaks is made again with back-off, if anybody still waits. The same happens when the slot of a
//!    record has moved.
//!
//! Only latency depends on it: waiters also poll.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::try_join_all;
use redis::{
    Cmd, ErrorKind, PushInfo, PushKind, RedisError, RedisResult, Value, aio::MultiplexedConnection,
    cluster::NodeAddress,
};
use tokio::{
    runtime::Handle,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{error::denied, link::Link, names::Names};
use crate::{scope::StoreKey, store::wake::Wake};

/// How often a connection is pinged.
const PING: Duration = Duration::from_secs(10);
/// The first and the longest pause between two attempts to listen.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long a connection stays when nobody waits any more.
pub(super) const LINGER: Duration = Duration::from_secs(30);
/// The largest number of keys that are subscribed to at once.
const BATCH: usize = 256;

/// The node that has a record; `None` if there is only one server, or no primary is known.
type Node = Option<NodeAddress>;
/// A key, and whether anybody waits for it.
type Change = (StoreKey, bool);

/// Listens for the records that requests of this process wait for.
pub(super) struct Listener {
    link: Link,
    names: Arc<Names>,
    /// Whether the servers have sharded channels.
    sharded: bool,
    linger: Duration,
    runtime: Handle,
    wakes: RwLock<Vec<Wake>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The keys that somebody waits for, how many engines have told so, and the node that is listened on.
    awaited: HashMap<StoreKey, (usize, Node)>,
    tasks: HashMap<Node, Task>,
}

/// Listens on one node.
struct Task {
    changes: UnboundedSender<Change>,
    handle: AbortHandle,
}

impl Listener {
    pub(super) fn new(
        link: Link,
        names: Arc<Names>,
        sharded: bool,
        linger: Duration,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            link,
            names,
            sharded,
            linger,
            runtime,
            wakes: RwLock::default(),
            state: Mutex::default(),
        })
    }

    /// The command with which the scripts publish.
    pub(super) fn publish(&self) -> &'static str {
        if self.sharded { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Wakes an engine's waiters from now on.
    pub(super) fn attach(self: &Arc<Self>, wake: Wake) {
        let listener = Arc::downgrade(self);
        wake.on_awaited(move |key, awaited| {
            if let Some(listener) = listener.upgrade() {
                listener.awaited(*key, awaited);
            }
        });
        let mut wakes = self.wakes.write().unwrap_or_else(PoisonError::into_inner);
        wakes.retain(|wake| !wake.is_closed());
        wakes.push(wake);
    }

    /// Ends all listening.
    pub(super) fn stop(&self) {
        for task in self.state().tasks.values() {
            task.handle.abort();
        }
    }

    fn awaited(self: &Arc<Self>, key: StoreKey, awaited: bool) {
        let mut state = self.state();
        if !awaited {
            let Some((count, node)) = state.awaited.get_mut(&key) else {
                return;
            };
            *count -= 1;
            if *count == 0 {
                let node = node.take();
                state.awaited.remove(&key);
                self.tell(&mut state, &node, (key, false));
            }
            return;
        }
        if let Some((count, _)) = state.awaited.get_mut(&key) {
            *count += 1;
            return;
        }
        let node = self.node(&key);
        state.awaited.insert(key, (1, node.clone()));
        self.tell(&mut state, &node, (key, true));
    }

    /// Tells the task of this node of a change, and starts it if somebody begins to wait.
    fn tell(self: &Arc<Self>, state: &mut State, node: &Node, change: Change) {
        if let Some(task) = state.tasks.get(node) {
            // A task takes itself off the list before it ends, so it is there; after `stop` nobody is.
            let _ = task.changes.send(change);
        } else if change.1 {
            // The new task finds the key among those that are waited for.
            let (changes, inbox) = mpsc::unbounded_channel();
            let run = Arc::clone(self).run(node.clone(), inbox);
            let handle = self.runtime.spawn(run).abort_handle();
            state.tasks.insert(node.clone(), Task { changes, handle });
        }
    }

    fn node(&self, key: &StoreKey) -> Node {
        match &self.link {
            Link::Server(_) => None,
            Link::Cluster(cluster) => cluster.owner(self.names.record(key).as_bytes()),
        }
    }

    /// Listens on a node for as long as somebody waits for a record of it.
    async fn run(self: Arc<Self>, node: Node, mut changes: UnboundedReceiver<Change>) {
        let mut pause = BACKOFF.0;
        while self.stays(&node) {
            let begun = Instant::now();
            let listened = self.listen(&node, &mut changes).await;
            if matches!(listened, Ok(Ended::Unused)) {
                continue;
            }
            if let Err(error) = listened {
                if let Link::Cluster(cluster) = &self.link
                    // A missing permission says nothing about the node.
                    && !denied(&error)
                {
                    cluster.compare_soon();
                }
                let error: &dyn std::error::Error = &error;
                tracing::debug!(
                    error,
                    "not listening to Redis: waiters poll until it is possible again"
                );
            }
            // A proxy may accept the subscription and close the connection at once.
            pause = if begun.elapsed() >= BACKOFF.1 {
                BACKOFF.0
            } else {
                (pause * 2).min(BACKOFF.1)
            };
            // Jitter, so that the processes of a service do not all connect at once when the server is back.
            sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
        }
    }

    /// Whether the task of this node goes on. It hands the keys that are on other nodes now to their tasks. If it has
    /// none left, it is off the list, and ends.
    fn stays(self: &Arc<Self>, node: &Node) -> bool {
        let mut state = self.state();
        let mine = state.awaited.iter().filter(|(_, (_, on))| on == node);
        let mut keys: Vec<_> = mine.map(|(key, _)| *key).collect();
        let before = keys.len();
        keys.retain(|key| self.node(key) != *node);
        let left = before - keys.len();
        for key in keys {
            let now = self.node(&key);
            if let Some((_, on)) = state.awaited.get_mut(&key) {
                on.clone_from(&now);
            }
            self.tell(&mut state, &now, (key, true));
        }
        if left == 0 {
            state.tasks.remove(node);
        }
        left > 0
    }

    /// Listens on one connection until it ends or nobody needs it.
    async fn listen(
        self: &Arc<Self>,
        node: &Node,
        changes: &mut UnboundedReceiver<Change>,
    ) -> RedisResult<Ended> {
        let source = match &self.link {
            Link::Server(server) => Arc::clone(server.source()),
            Link::Cluster(cluster) => cluster.source_of(node.as_ref())?,
        };
        let (sender, mut pushes) = mpsc::unbounded_channel();
        let connection = source.connect_for_pushes(sender).await?;
        let mut subscriptions = Subscriptions {
            listener: self,
            connection,
            keys: HashSet::new(),
        };
        let all = self.all_of(node, changes);
        subscriptions.apply(all).await?;
        let mut pings = interval(PING.min(self.linger));
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut used) = (Vec::with_capacity(BATCH), Instant::now());
        loop {
            tokio::select! {
                // In this order: what the server has confirmed is known before the next change is made.
                biased;
                push = pushes.recv() => match push {
                    Some(push) if subscriptions.take(&push) => {}
                    _ => return Ok(Ended::Lost),
                },
                _ = changes.recv_many(&mut batch, BATCH) => {
                    subscriptions.apply(batch.drain(..)).await?;
                    used = Instant::now();
                }
                _ = pings.tick() => {
                    if subscriptions.keys.is_empty() {
                        if used.elapsed() >= self.linger {
                            return Ok(Ended::Unused);
                        }
                    } else if let Link::Cluster(cluster) = &self.link {
                        cluster.compare_if_due();
                    }
                    subscriptions.send(&redis::cmd("PING")).await?;
                }
                () = self.moved(node, &subscriptions.keys) => return Ok(Ended::Lost),
            }
        }
    }

    /// Waits until one of these keys is on another node than this one.
    async fn moved(&self, node: &Node, keys: &HashSet<StoreKey>) {
        let Link::Cluster(cluster) = &self.link else {
            return std::future::pending().await;
        };
        cluster
            .until(|| keys.iter().any(|key| self.node(key) != *node))
            .await;
    }

    /// The keys of this node that somebody waits for. Changes before are among them.
    fn all_of(&self, node: &Node, changes: &mut UnboundedReceiver<Change>) -> Vec<Change> {
        let state = self.state();
        while changes.try_recv().is_ok() {}
        let mine = state.awaited.iter().filter(|(_, (_, on))| on == node);
        mine.map(|(key, _)| (*key, true)).collect()
    }

    fn wake(&self, key: &StoreKey) {
        // A copy, because the wakes run the engines' code, which must not run under the lock.
        let wakes = self.wakes.read().unwrap_or_else(PoisonError::into_inner);
        let copy = wakes.clone();
        drop(wakes);
        for wake in copy {
            wake.key(key);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is consistent whenever the lock is free, so a poisoned lock is as good.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a connection ended.
enum Ended {
    /// Nobody has waited for long.
    Unused,
    /// It broke, or a slot moved.
    Lost,
}

/// What one connection is subscribed to.
struct Subscriptions<'a> {
    listener: &'a Listener,
    connection: MultiplexedConnection,
    keys: HashSet<StoreKey>,
}

impl Subscriptions<'_> {
    /// Subscribes and unsubscribes, and wakes the waiters of the new subscriptions: the records may have changed before.
    async fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> RedisResult<()> {
        // The last change of a key counts.
        let changes: HashMap<_, _> = changes.into_iter().collect();
        let new = |(key, awaited): &Change| self.keys.contains(key) != *awaited;
        let news: Vec<_> = changes.into_iter().filter(new).collect();
        for (key, awaited) in &news {
            if !*awaited {
                self.keys.remove(key);
            }
        }
        for some in news.chunks(BATCH) {
            let sent = some.iter().map(|(key, awaited)| {
                let channel = self.listener.names.channel(key);
                self.send(redis::cmd(self.command(*awaited)).arg(channel))
            });
            try_join_all(sent).await?;
        }
        for (key, _) in news.iter().filter(|(_, awaited)| *awaited) {
            self.keys.insert(*key);
            self.listener.wake(key);
        }
        Ok(())
    }

    fn command(&self, subscribe: bool) -> &'static str {
        match (self.listener.sharded, subscribe) {
            (true, true) => "SSUBSCRIBE",
            (true, false) => "SUNSUBSCRIBE",
            (false, true) => "SUBSCRIBE",
            (false, false) => "UNSUBSCRIBE",
        }
    }

    fn send(&self, command: &Cmd) -> impl Future<Output = RedisResult<Value>> + use<> {
        let (mut connection, command) = (self.connection.clone(), command.clone());
        async move {
            let reply = connection.send_packed_command(&command).await?;
            reply.extract_error()
        }
    }

    /// Takes what the server sent. `false` if the connection is of no use any more.
    fn take(&self, push: &PushInfo) -> bool {
        let channel = match push.data.first() {
            Some(Value::BulkString(channel)) => self.listener.names.key_of_channel(channel),
            _ => None,
        };
        match (&push.kind, channel) {
            (PushKind::Message | PushKind::SMessage, Some(key)) => self.listener.wake(&key),
            (PushKind::Disconnection, _) => return false,
            // The server does so by itself when the slot has moved.
            (PushKind::SUnsubscribe, Some(key)) => return !self.keys.contains(&key),
            _ => {}
        }
        true
    }
}

/// The error of a node of which nothing is known.
pub(super) fn no_primary() -> RedisError {
    RedisError::from((ErrorKind::ClusterConnectionNotFound, "no primary is known"))
}

#[cfg(test)]
mod tests;
