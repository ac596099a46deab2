//! A fleet: several processes on one store, of which some are killed or replaced while requests arrive.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use idempotent_runtime::{IdempotencyKey, StoreKey};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    ledger::{Ledger, Rule},
    node::{Gauges, Node},
    order::Order,
    random::Random,
    store::{Backend, NODES, StoreKind},
    watch::Watch,
};

/// Processes on one store.
pub(crate) struct Fleet {
    pub(crate) kind: StoreKind,
    backend: Arc<Backend>,
    ledger: Arc<Ledger>,
    nodes: Mutex<Vec<Option<Node>>>,
    /// What ended processes left behind.
    ended: Mutex<Vec<Arc<Watch>>>,
}

impl Fleet {
    /// Starts one; nothing if its server is not installed.
    pub(crate) async fn start(kind: StoreKind, ledger: &Arc<Ledger>) -> Option<Self> {
        let backend = tokio::task::block_in_place(|| kind.start())?;
        let fleet = Self {
            kind,
            backend: Arc::new(backend),
            ledger: Arc::clone(ledger),
            nodes: Mutex::default(),
            ended: Mutex::default(),
        };
        for place in 0..NODES {
            let node = fleet.start_node(place).await;
            fleet.nodes().push(Some(node));
        }
        Some(fleet)
    }

    async fn start_node(&self, place: usize) -> Node {
        loop {
            match Node::start(&self.backend, place, &self.ledger).await {
                Ok(node) => return node,
                // The store is away: a process supervisor tries again too.
                Err(_) => self.ledger.count("processes that found no store"),
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The address of one of the processes; none while it is being replaced.
    pub(crate) fn address(&self, random: &mut Random) -> Option<SocketAddr> {
        let nodes = self.nodes();
        Some(nodes[random.index(nodes.len())].as_ref()?.address)
    }

    /// Makes the store fail again and again until `over` says so. Every fault that it began has ended then.
    pub(crate) async fn fail_store(&self, random: &mut Random, over: impl Fn() -> bool) {
        while !over() {
            sleep(random.millis(100, 1500)).await;
            let what = self.backend.fail(random).await;
            self.ledger.count(what);
        }
    }

    /// Ends all faults of the store.
    pub(crate) fn heal(&self) {
        self.backend.heal();
    }

    /// Kills a process, or shuts it down, and starts the next one.
    pub(crate) async fn replace_one(&self, random: &mut Random) {
        let index = random.index(NODES);
        let Some(node) = self.nodes()[index].take() else {
            return;
        };
        self.ended().push(Arc::clone(&node.watch));
        if random.between(0, 1) == 0 {
            self.ledger.count("processes killed");
            node.kill();
        } else {
            self.ledger.count("processes shut down");
            node.shut_down(random.millis(0, 800)).await;
        }
        let node = self.start_node(index).await;
        self.nodes()[index] = Some(node);
    }

    /// Waits until nothing goes on in any process any more, and reports what does not end in this time.
    pub(crate) async fn rest(&self, limit: Duration) -> Duration {
        let since = Instant::now();
        let mut last = self.gauges();
        while since.elapsed() < limit {
            if last
                .iter()
                .all(|node| node.is_idle() && node.has_few_tasks())
            {
                return since.elapsed();
            }
            sleep(Duration::from_millis(50)).await;
            last = self.gauges();
        }
        for node in &last {
            if !node.is_idle() {
                self.ledger
                    .violation(Rule::NotIdle, format!("{}: {node:?}", self.kind.name()));
            } else if !node.has_few_tasks() {
                self.ledger
                    .violation(Rule::Tasks, format!("{}: {node:?}", self.kind.name()));
            }
        }
        since.elapsed()
    }

    pub(crate) fn gauges(&self) -> Vec<Gauges> {
        self.nodes().iter().flatten().map(Node::gauges).collect()
    }

    /// Whether a process that ended left this key behind.
    pub(crate) fn was_left_behind(&self, order: &Order) -> bool {
        let key = self.store_key(order);
        let ended = self.ended();
        key.is_some_and(|key| ended.iter().any(|watch| watch.is_open(&key)))
    }

    fn store_key(&self, order: &Order) -> Option<StoreKey> {
        let nodes = self.nodes();
        let key = IdempotencyKey::new(order.name()).ok()?;
        let engine = nodes.iter().flatten().next()?.engine();
        Some(engine.store_key(&order.endpoint(), None, &key))
    }

    /// The round is over: what ended processes left behind was looked at.
    pub(crate) fn forget_ended(&self) {
        self.ended().clear();
        for node in self.nodes().iter().flatten() {
            node.watch.prune();
        }
    }

    /// Starts tasks that never end, in one process.
    pub(crate) fn leak_tasks(&self, count: usize) {
        if let Some(node) = self.nodes().iter().flatten().next() {
            (0..count).for_each(|_| node.spawn(std::future::pending()));
        }
    }

    /// Replaces a process without a note of what it left behind.
    pub(crate) async fn lose(&self, address: SocketAddr) {
        let place = self.nodes().iter().position(|node| {
            let address_of = |node: &Node| node.address;
            node.as_ref().map(address_of) == Some(address)
        });
        let Some(place) = place else { return };
        if let Some(node) = self.nodes()[place].take() {
            node.kill();
        }
        let node = self.start_node(place).await;
        self.nodes()[place] = Some(node);
    }

    /// Shuts all processes down. Nothing goes on in them, so nothing may be left.
    pub(crate) async fn end(&self) {
        let nodes = std::mem::take(&mut *self.nodes());
        let mut ends = JoinSet::new();
        for node in nodes.into_iter().flatten() {
            ends.spawn(async move {
                let gauges = node.gauges();
                (gauges, node.shut_down(Duration::from_secs(1)).await)
            });
        }
        while let Some(ended) = ends.join_next().await {
            let (gauges, report) = ended.expect("a shutdown does not panic");
            if report.unknown + report.unconfirmed > 0 {
                let what = format!("{}: {report:?} of {gauges:?}", self.kind.name());
                self.ledger.violation(Rule::NotIdle, what);
            }
        }
    }

    fn nodes(&self) -> MutexGuard<'_, Vec<Option<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<Arc<Watch>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
