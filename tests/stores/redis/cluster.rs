//! The conformance suite on a Cluster of three primaries, and what only a Cluster can get wrong.

use std::{sync::OnceLock, time::Duration};

use idempotent_runtime::{
    StoreKey,
    store::{
        Outcome, Store, Weakness, Write,
        conformance::{Harness, key},
        redis::{ConnectError, RedisStore},
    },
};
use tokio::task::block_in_place;

use super::{hex, new_prefix, open, refused, shift, wakeup::services};
use crate::{
    observe::Log,
    servers::{
        free_port,
        redis::{FLUSHING, Redis},
        until,
    },
    service::latencies,
    toolbox::{answered, assert_in_flight, done, execute, new_claim, replays, within},
    waiting::NOTIFIED,
};

/// A store on the Cluster that all tests share, with a prefix of its own.
pub(super) struct ClusterHarness {
    store: RedisStore,
    prefix: String,
}

/// The nodes of the Cluster that all tests share.
fn nodes() -> Option<&'static [Redis]> {
    static NODES: OnceLock<Option<Vec<Redis>>> = OnceLock::new();
    crate::servers::server("redis-server")?;
    NODES
        .get_or_init(|| start(&["--appendonly", "yes"]))
        .as_deref()
}

/// Starts a Cluster of three primaries with these settings, and waits until it is ready.
pub(super) fn start(settings: &[&str]) -> Option<Vec<Redis>> {
    let mut nodes = Vec::new();
    for slots in [("0", "5000"), ("5001", "11000"), ("11001", "16383")] {
        let bus = free_port().to_string();
        let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        let node = Redis::with(&[settings, &cluster].concat())?;
        node.ask(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]);
        nodes.push((node, bus));
    }
    for (node, bus) in &nodes[1..] {
        let port = node.port().to_string();
        let first = &nodes[0].0;
        first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]);
    }
    let nodes: Vec<_> = nodes.into_iter().map(|(node, _)| node).collect();
    wait_until_ready(&nodes);
    Some(nodes)
}

fn wait_until_ready(nodes: &[Redis]) {
    let ready = |node: &Redis| {
        let info = node.ask(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    until("the Cluster", || nodes.iter().all(ready).then_some(()));
}

pub(super) fn url(nodes: &[Redis]) -> String {
    let hosts = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port()));
    format!("redis+cluster://{}", hosts.collect::<Vec<_>>().join(","))
}

impl ClusterHarness {
    fn nodes() -> &'static [Redis] {
        nodes().expect("checked before the test began")
    }

    async fn connect(prefix: &str) -> RedisStore {
        let builder = RedisStore::builder(url(Self::nodes())).prefix(prefix);
        builder.connect().await.expect("a store")
    }
}

impl Harness for ClusterHarness {
    type Store = RedisStore;
    const ADMINISTRABLE: bool = true;
    const STEPS: bool = true;
    const INSPECTABLE: bool = true;

    async fn open() -> Self {
        let prefix = new_prefix();
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
        for node in Self::nodes() {
            shift(node, &self.prefix, by);
        }
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        let record = format!("{}{}", self.prefix, hex(key));
        // The nodes that do not have the record answer with a redirection and change nothing.
        for node in Self::nodes() {
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
    for n in 0..60 {
        execute(harness.store(), &new_claim(key(n)), &done()).await;
        replays(harness.store(), key(n), &done()).await;
    }
    for node in nodes {
        let count = "return #redis.call('KEYS', ARGV[1] .. '*')";
        let count = node.ask(&["EVAL", count, "0", &harness.prefix]);
        let count: u32 = count[1..].trim().parse().expect("a number");
        assert!(count > 5, "{count} of 60 records on one of three nodes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_keeps_its_claims() {
    let Some(mut nodes) = start(&FLUSHING) else {
        return;
    };
    let store = open(RedisStore::builder(url(&nodes))).await;
    let claims: Vec<_> = (0..30).map(|n| new_claim(key(n))).collect();
    for mine in &claims {
        store.acquire(mine).await.unwrap();
    }
    block_in_place(|| {
        nodes[1].restart();
        wait_until_ready(&nodes);
    });
    for mine in &claims {
        let other = new_claim(mine.key);
        assert_in_flight(&answered(|| store.acquire(&other)).await);
        let held = mine.held();
        let completed = answered(|| store.complete(&held, &Outcome::Tombstone)).await;
        assert_eq!(completed, Write::Applied);
    }
}

/// The records are on different nodes, and so are their channels.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_completion_wakes_engines_on_every_node() {
    let Some(nodes) = nodes() else { return };
    within(NOTIFIED, async || {
        let [first, second] = services([&url(nodes), &url(nodes)]).await;
        latencies(&first, &second, 4).await
    })
    .await;
}

#[tokio::test]
async fn a_weak_node_is_found_whichever_it_is() {
    let Some(nodes) = start(&["--appendonly", "yes"]) else {
        return;
    };
    let set = |node: usize, setting: &str, value: &str| {
        let reply = nodes[node].ask(&["CONFIG", "SET", setting, value]);
        assert_eq!(reply, "+OK\r\n");
    };
    let weaknesses = async || match refused(RedisStore::builder(url(&nodes))).await {
        ConnectError::Weak { found } => found
            .into_iter()
            .map(|found| found.weakness)
            .collect::<Vec<_>>(),
        other => panic!("{other:?} instead of weaknesses"),
    };
    for node in 0..3 {
        set(node, "appendfsync", "no");
        // Several times, because a check of one node alone would find the weak one now and then.
        for _ in 0..5 {
            assert_eq!(weaknesses().await, [Weakness::AppendFsyncNo], "node {node}");
        }
        set(node, "appendfsync", "everysec");
    }
    open(RedisStore::builder(url(&nodes))).await;
    set(0, "appendonly", "no");
    set(1, "no-appendfsync-on-rewrite", "yes");
    set(2, "appendonly", "no");
    let both = [Weakness::AppendOnlyOff, Weakness::NoAppendFsyncOnRewrite];
    assert_eq!(weaknesses().await, both);
}

#[tokio::test]
async fn confirmation_by_replicas_is_refused_on_a_cluster() {
    let Some(nodes) = nodes() else { return };
    let builder = RedisStore::builder(url(nodes)).wait_replicas(1, Duration::from_secs(1));
    let error = refused(builder).await;
    assert!(error.to_string().contains("Cluster"), "{error}");
}

/// The address of one node goes to a server of another Cluster, which has all slots and would accept every claim.
#[tokio::test]
async fn a_server_of_another_cluster_at_the_address_of_one_node_gets_no_claim() {
    let Some(mut nodes) = start(&["--appendonly", "yes"]) else {
        return;
    };
    let store = open(RedisStore::builder(url(&nodes))).await;
    for n in 0..30 {
        store.acquire(&new_claim(key(n))).await.unwrap();
    }
    let (log, _guard) = Log::collect();
    nodes[1].kill();
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let settings = [&["--appendonly", "yes"], &cluster[..]].concat();
    let other = Redis::at(nodes[1].port(), &settings).unwrap();
    other.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    until("the other Cluster", || {
        let info = other.ask(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok").then_some(())
    });
    let mut refused = 0;
    for n in 100..160 {
        refused += u32::from(store.acquire(&new_claim(key(n))).await.is_err());
    }
    assert!(refused > 50, "{refused} of 60");
    assert_eq!(other.ask(&["DBSIZE"]), ":0\r\n");
    let text = log.text();
    let said = |line: &&str| line.contains(" ERROR ") && line.contains("another Cluster");
    assert_eq!(text.lines().filter(said).count(), 1, "{text}");
}

/// The settings of a node are changed, and its connections end: it gets no operation. The other nodes go on.
#[tokio::test]
async fn a_node_that_became_weaker_gets_no_operation() {
    let Some(nodes) = start(&["--appendonly", "yes"]) else {
        return;
    };
    let store = open(RedisStore::builder(url(&nodes))).await;
    let mine: Vec<_> = (0..60).map(|n| new_claim(key(n))).collect();
    for claim in &mine {
        store.acquire(claim).await.unwrap();
    }
    let (log, _guard) = Log::collect();
    nodes[1].ask(&["CONFIG", "SET", "appendonly", "no"]);
    nodes[1].ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    let renew = async || {
        let mut renewed = 0;
        for claim in &mine {
            renewed += u32::from(store.renew(&claim.held()).await.is_ok());
        }
        renewed
    };
    renew().await;
    let renewed = renew().await;
    assert!((20..55).contains(&renewed), "{renewed} of 60 renewals");
    let text = log.text();
    let said = |line: &&str| line.contains(" ERROR ") && line.contains("appendonly");
    assert_eq!(text.lines().filter(said).count(), 1, "{text}");
    nodes[1].ask(&["CONFIG", "SET", "appendonly", "yes"]);
    for claim in &mine {
        let held = claim.held();
        assert_eq!(answered(|| store.renew(&held)).await, Write::Applied);
    }
}
