//! The conformance suite on a Cluster of three, and what only a Cluster can get wrong.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, Outcome, Store, Write,
        conformance::{Harness, key, response},
        redis::{ConnectError, RedisStore, Weakness},
    },
};

use super::{SHIFT, hex};
use crate::{
    servers::{
        free_port,
        redis::{FLUSHING, Redis},
        until,
    },
    service::latencies,
    toolbox::{answered, new_claim, within},
    waiting::NOTIFIED,
};

pub(super) struct ClusterHarness {
    store: RedisStore,
    prefix: String,
}

/// Three primaries that all tests share.
fn nodes() -> Option<&'static [Redis]> {
    static NODES: OnceLock<Option<Vec<Redis>>> = OnceLock::new();
    crate::servers::server("redis-server")?;
    NODES
        .get_or_init(|| start(Redis::with, &["--appendonly", "yes"]))
        .as_deref()
}

/// A Cluster of three primaries with these settings, when it is ready.
pub(super) fn start(
    node: impl Fn(&[&str]) -> Option<Redis>,
    durability: &[&str],
) -> Option<Vec<Redis>> {
    let mut nodes = Vec::new();
    for slots in [("0", "5000"), ("5001", "11000"), ("11001", "16383")] {
        let bus = free_port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let node = node(&[durability, &cluster].concat())?;
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
        nodes.push((node, bus));
    }
    for (node, bus) in &nodes[1..] {
        let port = node.port().to_string();
        nodes[0]
            .0
            .ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
    }
    let nodes: Vec<_> = nodes.into_iter().map(|(node, _)| node).collect();
    until("the Cluster", || nodes.iter().all(ready).then_some(()));
    Some(nodes)
}

pub(super) fn ready(node: &Redis) -> bool {
    let info = node.ask(&["CLUSTER", "INFO"]);
    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
}

pub(super) fn url(nodes: &[Redis]) -> String {
    let hosts: Vec<_> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()))
        .collect();
    format!("redis+cluster://{}", hosts.join(","))
}

impl ClusterHarness {
    async fn connect(prefix: &str) -> RedisStore {
        let nodes = nodes().expect("looked for before the test began");
        let store = RedisStore::builder(url(nodes))
            .prefix(prefix)
            .connect()
            .await;
        store.expect("a store")
    }
}

impl Harness for ClusterHarness {
    type Store = RedisStore;

    async fn open() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}:", NEXT.fetch_add(1, Ordering::Relaxed));
        let store = Self::connect(&prefix).await;
        Self { store, prefix }
    }

    fn store(&self) -> &RedisStore {
        &self.store
    }

    async fn second_handle(&self) -> RedisStore {
        Self::connect(&self.prefix).await
    }

    async fn advance(&self, by: Duration) {
        for node in nodes().into_iter().flatten() {
            node.ask(&[
                "EVAL",
                SHIFT,
                "0",
                &self.prefix,
                &by.as_millis().to_string(),
            ]);
        }
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        let record = format!("{}{}", self.prefix, hex(key));
        // Those that do not have it say where it is, and change nothing.
        for node in nodes().into_iter().flatten() {
            node.ask_bytes(&[b"HSET", record.as_bytes(), b"r", stored]);
        }
        true
    }
}

mod conformance {
    idempotent_runtime::store_conformance!(super::ClusterHarness, if super::nodes().is_some());
}

#[tokio::test]
async fn records_spread_over_the_nodes() {
    let Some(nodes) = nodes() else { return };
    let harness = ClusterHarness::open().await;
    let outcome = Outcome::Response(response(200, &[], b"done"));
    for n in 0..60 {
        let mine = new_claim(key(n));
        let store = harness.store();
        assert_eq!(
            store.acquire(&mine).await.unwrap(),
            Acquisition::Acquired { attempt: 1 }
        );
        assert_eq!(
            store.complete(&mine.held(), &outcome).await.unwrap(),
            Write::Applied
        );
        let again = store.acquire(&new_claim(key(n))).await.unwrap();
        assert_eq!(again, Acquisition::Completed(outcome.clone()));
    }
    for node in nodes {
        let count = "return #redis.call('KEYS', ARGV[1] .. '*')";
        let here = node.ask(&["EVAL", count, "0", &harness.prefix]);
        let here: u32 = here[1..].trim().parse().expect("a number");
        assert!(here > 5, "{here} of 60 records on one of three nodes");
    }
}

/// A node that was killed and restarted has its claims, and the store finds it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_keeps_its_claims() {
    let Some(mut nodes) = start(Redis::with, &FLUSHING) else {
        return;
    };
    let store = RedisStore::connect(url(&nodes)).await.unwrap();
    let claims: Vec<_> = (0..30).map(|n| new_claim(key(n))).collect();
    for mine in &claims {
        store.acquire(mine).await.unwrap();
    }
    tokio::task::block_in_place(|| {
        nodes[1].restart();
        until("the Cluster", || nodes.iter().all(ready).then_some(()));
    });
    for mine in &claims {
        let other = new_claim(mine.key);
        let answer = answered(|| store.acquire(&other)).await;
        assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
        let held = mine.held();
        let completed = answered(|| store.complete(&held, &Outcome::Tombstone)).await;
        assert_eq!(completed, Write::Applied);
    }
}

/// A completion on one node wakes who listens on another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_is_heard_on_every_node() {
    let Some(nodes) = nodes() else { return };
    within(NOTIFIED, async || {
        let [first, second] = super::wakeup::services([&url(nodes); 2]).await;
        latencies(&first, &second, 4).await
    })
    .await;
}

/// A node that would lose what it acknowledged is found, whichever it is.
#[tokio::test]
async fn every_node_is_asked_whether_it_is_durable() {
    let Some(nodes) = start(Redis::with, &["--appendonly", "yes"]) else {
        return;
    };
    let set = |node: usize, setting: &str, value: &str| {
        assert_eq!(
            nodes[node].ask(&["CONFIG", "SET", setting, value]),
            "+OK\r\n"
        );
    };
    for node in 0..3 {
        set(node, "appendfsync", "no");
        // Many times, because a check of any one node finds it now and then.
        for _ in 0..5 {
            assert_eq!(found(&nodes).await, [Weakness::NeverFlushed], "node {node}");
        }
        set(node, "appendfsync", "everysec");
    }
    RedisStore::connect(url(&nodes)).await.expect("all is well");
    set(0, "appendonly", "no");
    set(1, "no-appendfsync-on-rewrite", "yes");
    set(2, "appendonly", "no");
    let both = [Weakness::NoAppendOnlyFile, Weakness::NotFlushedInRewrites];
    assert_eq!(found(&nodes).await, both);
}

async fn found(nodes: &[Redis]) -> Vec<Weakness> {
    match RedisStore::connect(url(nodes)).await {
        Err(ConnectError::Weak { weaknesses }) => weaknesses,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn confirmation_by_replicas_is_refused_on_a_cluster() {
    let Some(nodes) = nodes() else { return };
    let builder = RedisStore::builder(url(nodes)).wait_replicas(1, Duration::from_secs(1));
    let error = builder.connect().await.expect_err("refused");
    assert!(error.to_string().contains("Cluster"), "{error}");
}
