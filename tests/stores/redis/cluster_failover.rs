//! Nodes of a Cluster that are killed, hang, or hand their slots over.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use idempotent_runtime::{
    StoreKey,
    store::{
        Acquisition, Outcome, Store, StoreErrorKind, Write,
        conformance::key,
        redis::{ConnectError, RedisStore, RedisStoreBuilder},
    },
};
use tokio::task::block_in_place;

use super::{
    cluster::{start, url},
    permissions::{documented_besides, documented_rule},
};
use crate::{
    servers::{free_port, redis::Redis, until},
    toolbox::{answered, new_claim, within},
};

/// Nodes that find out quickly that another is gone.
const QUICK: [&str; 4] = ["--appendonly", "yes", "--cluster-node-timeout", "700"];
/// With these the nodes that are left go on alone.
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
    until("its data", || {
        let info = replica.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    until("all to know it", || {
        let know = |node: &Redis| node.ask(&["CLUSTER", "NODES"]).contains("slave");
        nodes.iter().all(know).then_some(())
    });
    replica
}

fn id(node: &Redis) -> String {
    node.ask(&["CLUSTER", "MYID"]).trim().to_owned()
}

/// Makes a node's process hang, until it is killed with the test.
fn stop(node: &Redis) {
    let info = node.ask(&["INFO", "server"]);
    let mut lines = info.lines();
    let process = lines.find_map(|line| line.strip_prefix("process_id:"));
    let process = process.expect("its number").trim();
    let sent = Command::new("kill").args(["-STOP", process]).status();
    assert!(sent.expect("kill").success());
}

/// So many keys for each of the nodes.
fn keys(nodes: &[Redis], each: usize) -> Vec<Vec<StoreKey>> {
    let mut found = vec![Vec::new(); nodes.len()];
    for n in 0..=255 {
        let name = format!("idempotent:{}", super::hex(&key(n)));
        let slot = nodes[0].ask(&["CLUSTER", "KEYSLOT", &name]);
        let slot: u16 = slot[1..].trim().parse().expect("a slot");
        let node = usize::from(slot > 5000) + usize::from(slot > 11000);
        if found[node].len() < each {
            found[node].push(key(n));
        }
    }
    assert!(found.iter().all(|keys| keys.len() == each), "{found:?}");
    found
}

fn slot(node: &Redis, key: &StoreKey) -> String {
    let name = format!("idempotent:{}", super::hex(key));
    node.ask(&["CLUSTER", "KEYSLOT", &name])[1..]
        .trim()
        .to_owned()
}

async fn acquired(store: &RedisStore, key: StoreKey) {
    let mine = new_claim(key);
    let answer = answered(|| store.acquire(&mine)).await;
    assert_eq!(answer, Acquisition::Acquired { attempt: 1 });
}

/// It might be weak, so without a word of the operator the store is not opened; with it, what is there is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_down_is_named_unless_that_is_accepted() {
    let Some(mut nodes) = start(Redis::with, &[&QUICK[..], &PARTIAL].concat()) else {
        return;
    };
    let keys = keys(&nodes, 2);
    block_in_place(|| nodes[1].kill());
    let started = Instant::now();
    let error = on(&nodes).connect().await.expect_err("who knows");
    let said = error.to_string();
    let port = nodes[1].port();
    match error {
        ConnectError::UnreachablePrimaries { nodes, .. } => {
            assert_eq!(nodes, format!("127.0.0.1:{port}"))
        }
        other => panic!("{other:?} is another error"),
    }
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    let took = started.elapsed();
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );

    let store = on(&nodes).accept_weaker_durability().connect().await;
    let store = store.expect("two of three nodes");
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
    // And when it is back, its keys are.
    block_in_place(|| nodes[1].restart());
    acquired(&store, keys[1][0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_down_for_the_lack_of_a_node_is_never_opened() {
    let Some(mut nodes) = start(Redis::with, &QUICK) else {
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
    match on(&nodes).accept_weaker_durability().connect().await {
        Err(ConnectError::Unreachable { source }) => {
            assert_eq!(source.code(), Some("CLUSTERDOWN"), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

/// Who starts during a failover waits for it, and the replica is asked in place of its primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_waited_for_when_a_store_is_opened() {
    let Some(mut nodes) = start(Redis::with, &QUICK) else {
        return;
    };
    let replica = block_in_place(|| replica(&nodes));
    let keys = keys(&nodes, 1);
    block_in_place(|| nodes[1].kill());
    let store = on(&nodes).connect().await.expect("the replica took over");
    for key in keys.into_iter().flatten() {
        acquired(&store, key).await;
    }
    assert!(
        replica
            .ask(&["INFO", "replication"])
            .contains("role:master")
    );
}

/// A node that hangs keeps its connections, and says nothing on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_stops_no_verbs_for_others_and_is_replaced() {
    within(Duration::from_millis(250), beside_a_node_that_hangs).await;
}

/// How long verbs for the other nodes took.
async fn beside_a_node_that_hangs() -> Vec<Duration> {
    let Some(nodes) = start(Redis::with, &QUICK) else {
        return Vec::new();
    };
    let replica = block_in_place(|| replica(&nodes));
    let keys = keys(&nodes, 3);
    let store = on(&nodes).connect().await.expect("a store");
    for keys in &keys {
        acquired(&store, keys[0]).await;
    }
    let sound = Instant::now();
    block_in_place(|| stop(&nodes[1]));
    let hung = Instant::now();
    // Clients that insist on keys of the node that hangs.
    let insisting: Vec<_> = (0..8)
        .map(|_| {
            let (store, key) = (store.clone(), keys[1][1]);
            tokio::spawn(async move { answered(|| store.get(&key)).await })
        })
        .collect();
    // Before the others notice, which takes them 700 ms, nothing but the store itself could be in the way.
    let mut latencies = Vec::new();
    for node in [0, 2].into_iter().cycle() {
        if hung.elapsed() > Duration::from_millis(500) {
            break;
        }
        let started = Instant::now();
        match store.get(&keys[node][0]).await {
            Ok(record) => {
                assert!(record.is_some());
                latencies.push(started.elapsed());
            }
            // One that the test machine delayed until the Cluster was down.
            Err(error) => assert!(sound.elapsed() > Duration::from_millis(700), "{error}"),
        }
    }
    assert!(!latencies.is_empty());
    while !block_in_place(|| replica.ask(&["INFO", "replication"])).contains("role:master") {
        // The Cluster may be down as a whole until the replica has taken over.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(hung.elapsed() < Duration::from_secs(20), "no failover");
    }
    let slowest = latencies.iter().max();
    println!("slowest verb beside a node that hangs: {slowest:?}");
    for get in insisting {
        assert!(get.await.expect("no panic").is_none());
    }
    acquired(&store, keys[1][2]).await;
    println!("its own keys were served again {:?} after", hung.elapsed());
    let again = new_claim(keys[1][0]);
    let answer = store.acquire(&again).await.unwrap();
    assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
    latencies
}

/// While a slot is on its way, new records of it are made where it goes, with the permissions of the documentation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_are_enough_for_a_cluster_that_moves_slots() {
    let Some(nodes) = start(Redis::with, &QUICK) else {
        return;
    };
    let besides = documented_besides("a Cluster");
    assert_eq!(besides, ["+cluster|slots", "+asking"]);
    let mut rule = documented_rule();
    rule.extend(besides.iter().map(String::as_str));
    for node in &nodes {
        assert_eq!(node.ask(&rule), "+OK\r\n", "{rule:?}");
    }
    let app = || {
        let hosts = url(&nodes).replace("redis+cluster://", "redis+cluster://app:pw@");
        RedisStore::builder(hosts)
    };
    let store = app().connect().await.expect("permitted");
    super::permissions::works(&store).await;

    let moved = keys(&nodes, 9)[0][8];
    let (from, to, slot) = (id(&nodes[0]), id(&nodes[1]), slot(&nodes[0], &moved));
    let set = |node: usize, what: &[&str]| {
        let command = [&["CLUSTER", "SETSLOT", &slot], what].concat();
        assert_eq!(nodes[node].ask(&command), "+OK\r\n", "{command:?}");
    };
    set(1, &["IMPORTING", &from]);
    set(0, &["MIGRATING", &to]);
    // What the documentation says is needed besides is needed.
    let permit = |right: &str| {
        for node in &nodes {
            assert_eq!(node.ask(&["ACL", "SETUSER", "app", right]), "+OK\r\n");
            node.ask(&["ACL", "LOG", "RESET"]);
        }
    };
    permit("-asking");
    let error = store.acquire(&new_claim(moved)).await;
    let kind = error.expect_err("not permitted").kind();
    assert_eq!(kind, StoreErrorKind::Refused);
    permit("+asking");
    let mine = new_claim(moved);
    assert_eq!(
        store.acquire(&mine).await.unwrap(),
        Acquisition::Acquired { attempt: 1 },
    );
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    // A script that the node does not know is sent in full, and has to say again that it knows.
    nodes[1].ask(&["SCRIPT", "FLUSH"]);
    let completed = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    for node in [1, 0, 2] {
        set(node, &["NODE", &to]);
    }
    let again = store.acquire(&new_claim(moved)).await.unwrap();
    assert_eq!(again, Acquisition::Completed(Outcome::Tombstone));
    for node in &nodes {
        assert_eq!(node.ask(&["ACL", "LOG"]), "*0\r\n", "something was denied");
    }

    permit("-cluster");
    match app().connect().await {
        Err(ConnectError::NotPermitted { command, .. }) => assert_eq!(command, "CLUSTER SLOTS"),
        other => panic!("{other:?}"),
    }
}
