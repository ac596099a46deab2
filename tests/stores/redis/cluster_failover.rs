//! Nodes of a Cluster that are killed, hang, or hand their slots over.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use idempotent_runtime::{
    StoreKey,
    store::{
        AnyStore, Outcome, Store, StoreErrorKind, Write,
        conformance::key,
        inspect::Query,
        redis::{ConnectError, RedisStore, RedisStoreBuilder},
    },
};
use tokio::task::block_in_place;

use super::{
    cluster::{start, url},
    hex, open,
    permissions::{documented_additions, documented_rule, every_operation_works},
};
use crate::{
    servers::{free_port, redis::Redis, until},
    toolbox::{FIRST, answered, assert_in_flight, new_claim, replays, within},
};

/// Nodes that detect a failure quickly.
const QUICK: [&str; 4] = ["--appendonly", "yes", "--cluster-node-timeout", "700"];
/// With this the remaining nodes serve their slots while others have no node.
const PARTIAL: [&str; 2] = ["--cluster-require-full-coverage", "no"];

fn on(nodes: &[Redis]) -> RedisStoreBuilder {
    RedisStore::builder(url(nodes)).response_timeout(Duration::from_millis(300))
}

/// A replica of the second of these nodes.
fn replica(nodes: &[Redis]) -> Redis {
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let replica = Redis::with(&[&QUICK[..], &cluster].concat()).expect("a node");
    let port = replica.port().to_string();
    nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    let primary = id(&nodes[1]);
    until("the replica", || {
        (replica.ask(&["CLUSTER", "REPLICATE", &primary]) == "+OK\r\n").then_some(())
    });
    replica.wait_for_sync();
    until("all nodes to know the replica", || {
        let know = |node: &Redis| node.ask(&["CLUSTER", "NODES"]).contains("slave");
        nodes.iter().all(know).then_some(())
    });
    replica
}

fn id(node: &Redis) -> String {
    node.ask(&["CLUSTER", "MYID"]).trim().to_owned()
}

/// Stops a node's process with SIGSTOP; it is killed with the test.
fn stop(node: &Redis) {
    let info = node.ask(&["INFO", "server"]);
    let mut lines = info.lines();
    let process = lines.find_map(|line| line.strip_prefix("process_id:"));
    let process = process.expect("a process id").trim();
    let sent = Command::new("kill").args(["-STOP", process]).status();
    assert!(sent.expect("kill").success());
}

/// So many keys of each node.
fn keys(nodes: &[Redis], each: usize) -> Vec<Vec<StoreKey>> {
    let mut found = vec![Vec::new(); nodes.len()];
    for key in (0..=255).map(key) {
        let slot = slot(&nodes[0], &key);
        let node = usize::from(slot > 5000) + usize::from(slot > 11000);
        if found[node].len() < each {
            found[node].push(key);
        }
    }
    assert!(found.iter().all(|keys| keys.len() == each), "{found:?}");
    found
}

fn slot(node: &Redis, key: &StoreKey) -> u16 {
    let name = format!("idempotent:{}", hex(key));
    let slot = node.ask(&["CLUSTER", "KEYSLOT", &name]);
    slot[1..].trim().parse().expect("a slot")
}

/// The key is acquired in the end.
async fn acquired(store: &AnyStore, key: StoreKey) {
    let mine = new_claim(key);
    assert_eq!(answered(|| store.acquire(&mine)).await, FIRST);
}

/// A primary that is down could be weak: the store is opened only if the operator accepts that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_down_is_named_unless_that_is_accepted() {
    let Some(mut nodes) = start(&[&QUICK[..], &PARTIAL].concat()) else {
        return;
    };
    let keys = keys(&nodes, 2);
    block_in_place(|| nodes[1].kill());
    let started = Instant::now();
    let error = on(&nodes).connect().await.expect_err("a node is down");
    let text = error.to_string();
    let down = format!("127.0.0.1:{}", nodes[1].port());
    match error {
        ConnectError::UnreachablePrimaries { nodes, .. } => assert_eq!(nodes, down),
        other => panic!("{other:?} instead of the primary"),
    }
    assert!(text.contains(&down), "{text}");
    let took = started.elapsed();
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );

    let store = open(on(&nodes).accept_unverified()).await;
    for (node, keys) in keys.iter().enumerate() {
        for key in keys {
            if node == 1 {
                let error = store.acquire(&new_claim(*key)).await;
                let error = error.expect_err("its node is down");
                assert_eq!(error.kind(), StoreErrorKind::Unavailable);
            } else {
                acquired(&store, *key).await;
            }
        }
    }
    // Its keys are served again once it is back.
    block_in_place(|| nodes[1].restart());
    acquired(&store, keys[1][0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_because_a_node_is_missing_is_never_opened() {
    let Some(mut nodes) = start(&QUICK) else {
        return;
    };
    block_in_place(|| {
        nodes[2].kill();
        until("the Cluster to notice", || {
            let down = |node: &Redis| {
                let info = node.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:fail")
            };
            nodes[..2].iter().all(down).then_some(())
        });
    });
    match on(&nodes).accept_unverified().connect().await {
        Err(ConnectError::Unreachable { source }) => {
            assert_eq!(source.code(), Some("CLUSTERDOWN"), "{source}");
        }
        other => panic!("{other:?} instead of CLUSTERDOWN"),
    }
}

/// A store that is opened during a failover waits for its end, and checks the replica in place of its primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_waited_for_when_a_store_is_opened() {
    let Some(mut nodes) = start(&QUICK) else {
        return;
    };
    let replica = block_in_place(|| replica(&nodes));
    let keys = keys(&nodes, 1);
    block_in_place(|| nodes[1].kill());
    let store = open(on(&nodes)).await;
    for key in keys.into_iter().flatten() {
        acquired(&store, key).await;
    }
    assert!(is_primary(&replica));
}

fn is_primary(node: &Redis) -> bool {
    let info = node.ask(&["INFO", "replication"]);
    info.contains("role:master")
}

/// A node that hangs keeps its connections open and answers nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_delays_no_operation_on_others_and_is_replaced() {
    within(Duration::from_millis(250), beside_a_node_that_hangs).await;
}

/// How long operations on the other nodes took.
async fn beside_a_node_that_hangs() -> Vec<Duration> {
    let Some(nodes) = start(&QUICK) else {
        return Vec::new();
    };
    let replica = block_in_place(|| replica(&nodes));
    let keys = keys(&nodes, 3);
    let store = open(on(&nodes)).await;
    for keys in &keys {
        acquired(&store, keys[0]).await;
    }
    // A Cluster confirms no write by its replicas, and what the replica lacks is lost with the node.
    block_in_place(|| replica.wait_for_writes_of(&nodes[1]));
    let before = Instant::now();
    block_in_place(|| stop(&nodes[1]));
    let stopped = Instant::now();
    // Clients that repeat operations on keys of the node that hangs.
    let insisting: Vec<_> = (0..8)
        .map(|_| {
            let (store, key) = (store.clone(), keys[1][1]);
            let get = async move { assert!(answered(|| store.get(&key)).await.is_none()) };
            tokio::spawn(get.boxed())
        })
        .collect();
    // The other nodes detect the failure after 700 ms. Until then only the store itself could delay an operation.
    let mut latencies = Vec::new();
    for node in [0, 2].into_iter().cycle() {
        if stopped.elapsed() > Duration::from_millis(500) {
            break;
        }
        let started = Instant::now();
        match store.get(&keys[node][0]).await {
            Ok(record) => {
                assert!(record.is_some());
                latencies.push(started.elapsed());
            }
            // The test machine delayed this one until the Cluster was down.
            Err(error) => assert!(before.elapsed() > Duration::from_millis(700), "{error}"),
        }
    }
    assert!(!latencies.is_empty());
    // The whole Cluster may be down until the replica has taken over.
    block_in_place(|| until("the failover", || is_primary(&replica).then_some(())));
    let slowest = latencies.iter().max();
    println!("slowest operation beside a node that hangs: {slowest:?}");
    for get in insisting {
        get.await.expect("no panic");
    }
    acquired(&store, keys[1][2]).await;
    println!("its keys were served again after {:?}", stopped.elapsed());
    let again = store.acquire(&new_claim(keys[1][0])).await;
    assert_in_flight(&again.unwrap());
    latencies
}

/// While a slot moves, its new records are made on the node it moves to, with the documented permissions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_are_enough_for_a_cluster_that_moves_slots() {
    let Some(nodes) = start(&QUICK) else {
        return;
    };
    let additions = documented_additions("a Cluster");
    assert_eq!(additions, ["+cluster|slots", "+asking"]);
    let mut rule = documented_rule();
    rule.extend(additions.iter().map(String::as_str));
    for node in &nodes {
        assert_eq!(node.ask(&rule), "+OK\r\n", "{rule:?}");
    }
    let app = || {
        let hosts = url(&nodes).replace("redis+cluster://", "redis+cluster://app:pw@");
        RedisStore::builder(hosts)
    };
    let store = open(app()).await;
    every_operation_works(&store).await;

    let moving = keys(&nodes, 9)[0][8];
    let slot = slot(&nodes[0], &moving).to_string();
    let (from, to) = (id(&nodes[0]), id(&nodes[1]));
    let set = |node: usize, state: &[&str]| {
        let command = [&["CLUSTER", "SETSLOT", &slot], state].concat();
        assert_eq!(nodes[node].ask(&command), "+OK\r\n", "{command:?}");
    };
    set(1, &["IMPORTING", &from]);
    set(0, &["MIGRATING", &to]);
    // The additions are needed.
    let permit = |right: &str| {
        for node in &nodes {
            assert_eq!(node.ask(&["ACL", "SETUSER", "app", right]), "+OK\r\n");
            node.ask(&["ACL", "LOG", "RESET"]);
        }
    };
    permit("-asking");
    let error = store.acquire(&new_claim(moving)).await;
    let kind = error.expect_err("not permitted").kind();
    assert_eq!(kind, StoreErrorKind::Refused);
    permit("+asking");
    let mine = new_claim(moving);
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    // The node does not know the script: it is sent in full, after another ASKING.
    nodes[1].ask(&["SCRIPT", "FLUSH"]);
    let completed = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    for node in [1, 0, 2] {
        set(node, &["NODE", &to]);
    }
    replays(&store, moving, &Outcome::Tombstone).await;
    for node in &nodes {
        assert_eq!(node.ask(&["ACL", "LOG"]), "*0\r\n", "something was denied");
    }
    for purpose in ["listing", "listing in a Cluster"] {
        let error = store.inspectable().unwrap().list(&Query::new()).await;
        let kind = error.expect_err("not permitted").kind();
        assert_eq!(kind, StoreErrorKind::Refused, "{purpose}");
        for addition in documented_additions(purpose) {
            permit(&addition);
        }
    }
    let listed = store.inspectable().unwrap().list(&Query::new()).await;
    assert!(!listed.unwrap().entries.is_empty());

    permit("-cluster");
    match app().connect().await {
        Err(ConnectError::NotPermitted { command, .. }) => assert_eq!(command, "CLUSTER SLOTS"),
        other => panic!("{other:?} instead of the command"),
    }
}
