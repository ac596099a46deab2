use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    super::{
        RedisStore, RedisStoreBuilder,
        fake::{Fake, info, slots, text},
        info::Info,
    },
    *,
};
use crate::store::weakness::{FoundWeakness, Weakness};

const HERE: &str = "127.0.0.1";

fn on(nodes: &[&Fake]) -> RedisStoreBuilder {
    let hosts: Vec<_> = nodes
        .iter()
        .map(|node| format!("{HERE}:{}", node.port()))
        .collect();
    RedisStore::builder(format!("redis+cluster://{}", hosts.join(",")))
}

/// Short time-outs, for tests with an unreachable node.
fn impatient(builder: RedisStoreBuilder) -> RedisStoreBuilder {
    let soon = Duration::from_millis(400);
    builder.connect_timeout(soon).response_timeout(soon)
}

/// Three nodes that report a third of the slots each, with these hosts for the last two.
async fn three(hosts: [&str; 2]) -> [Fake; 3] {
    let nodes = [Fake::new().await, Fake::new().await, Fake::new().await];
    let [first, second, third] = [0, 1, 2].map(|at| nodes[at].port());
    for node in &nodes {
        node.says(
            "CLUSTER SLOTS",
            slots(&[
                (0, 5000, &[(HERE, first)]),
                (5001, 11_000, &[(hosts[0], second)]),
                (11_001, 16_383, &[(hosts[1], third)]),
            ]),
        );
    }
    nodes
}

/// A primary that no node reports cannot be probed.
#[tokio::test]
async fn slots_without_a_reported_primary_are_an_error_unless_that_is_accepted() {
    let nodes = three([HERE, "?"]).await;
    let builder = on(&[&nodes[0]]);
    let accepting = builder.clone().accept_unverified();
    let (refused, accepted) = tokio::join!(builder.connect(), accepting.connect());
    accepted.expect("two of three primaries are reported");
    let error = refused.expect_err("one primary is not reported");
    let said = error.to_string();
    match error {
        ConnectError::Uncovered { slots } => assert_eq!(slots, "11001-16383"),
        other => panic!("{other:?} is another error"),
    }
    assert!(
        said.contains("11001-16383") && said.contains("accept_unverified()"),
        "{said}"
    );
}

/// An unreachable primary may be older than the others and unable to run their scripts.
#[tokio::test]
async fn all_unreachable_primaries_are_named_and_their_version_is_unknown() {
    let nodes = three([HERE, HERE]).await;
    for unreachable in &nodes[1..] {
        unreachable.says("", None);
    }
    let builder = impatient(on(&[&nodes[0]]));
    let accepting = builder.clone().accept_unverified();
    let (refused, accepted) = tokio::join!(builder.connect(), accepting.connect());
    accepted.expect("one of three primaries answers");
    match refused.expect_err("two primaries are unreachable") {
        ConnectError::UnreachablePrimaries { nodes: named, .. } => {
            let mut named: Vec<_> = named.split(", ").collect();
            named.sort_unstable();
            let mut unreachable = [1, 2].map(|at| format!("{HERE}:{}", nodes[at].port()));
            unreachable.sort_unstable();
            assert_eq!(named, unreachable);
        }
        other => panic!("{other:?} is another error"),
    }
    assert!(!nodes[0].heard("SCRIPT LOAD").is_empty());
    assert!(nodes[0].heard("SCRIPT LOAD #!lua").is_empty());
    let whole = three([HERE, HERE]).await;
    on(&[&whole[0]]).connect().await.expect("all of them");
    assert!(!whole[0].heard("SCRIPT LOAD #!lua").is_empty());
}

/// Not even if weaker durability is accepted.
#[tokio::test]
async fn a_cluster_none_of_whose_primaries_serves_is_never_opened() {
    let nodes = three([HERE, "?"]).await;
    for node in &nodes[..2] {
        node.says("PEXPIRE", None);
    }
    let builder = impatient(on(&[&nodes[0]])).accept_unverified();
    let error = builder.connect().await;
    assert!(
        matches!(error, Err(ConnectError::Unreachable { .. })),
        "{error:?}"
    );
}

/// A former primary has come back as a replica.
#[tokio::test]
async fn after_a_failover_the_new_primary_is_probed() {
    let [old, new] = [Fake::new().await, Fake::new().await];
    let answer = |node: &Fake| slots(&[(0, 16_383, &[(HERE, node.port())])]);
    old.says("INFO", info("7.0.0", "1", "slave"));
    new.says("INFO", info("7.0.0", "0", "master"));
    let (before, after) = (answer(&old), answer(&new));
    let asked = AtomicUsize::new(0);
    old.answers("CLUSTER SLOTS", move |_| {
        let late = asked.fetch_add(1, Ordering::SeqCst) > 1;
        Some(if late { after.clone() } else { before.clone() })
    });
    let error = on(&[&old]).connect().await.expect_err("weak");
    match error {
        ConnectError::Weak { found } => {
            assert_eq!(found, [FoundWeakness::new(Weakness::AppendOnlyOff, "no")]);
        }
        other => panic!("{other:?} is another error"),
    }
}

/// It reports itself that it is a replica: that outweighs the views of two nodes that have not noticed the failover.
#[tokio::test]
async fn a_former_primarys_own_role_outweighs_the_view_of_most_nodes() {
    let [old, near, new] = [Fake::new().await, Fake::new().await, Fake::new().await];
    let answer = |node: &Fake| slots(&[(0, 16_383, &[(HERE, node.port())])]);
    old.says("INFO", info("7.0.0", "1", "slave"));
    for node in [&old, &near] {
        node.says("CLUSTER SLOTS", answer(&old));
    }
    new.says("CLUSTER SLOTS", answer(&new));
    let opened = on(&[&old, &near, &new]).connect().await;
    opened.expect("the new primary is probed");
}

#[tokio::test]
async fn a_failed_topology_refresh_is_repeated() {
    let node = Fake::new().await;
    let answer = slots(&[(0, 16_383, &[(HERE, node.port())])]);
    let asked = AtomicUsize::new(0);
    node.answers("CLUSTER SLOTS", move |_| {
        let late = asked.fetch_add(1, Ordering::SeqCst) > 1;
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        Some(if late {
            answer.clone()
        } else {
            loading.to_owned()
        })
    });
    on(&[&node]).connect().await.expect("loaded by now");
}

/// It answers `INFO` and no command that the store needs.
#[tokio::test]
async fn a_primary_that_is_loading_its_data_is_probed_again() {
    let nodes = three([HERE, HERE]).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let loading = "-LOADING Redis is loading the dataset in memory\r\n".to_owned();
    let loads = Arc::clone(&asked);
    nodes[1].answers("SCRIPT LOAD", move |_| {
        let loaded = loads.load(Ordering::SeqCst) > 2;
        Some(if loaded {
            text("hash")
        } else {
            loading.clone()
        })
    });
    nodes[1].answers("INFO", move |_| {
        let loaded = asked.fetch_add(1, Ordering::SeqCst) > 1;
        let role = ["master\r\nloading:1", "master\r\nloading:0"][usize::from(loaded)];
        Some(info("7.0.0", "1", role))
    });
    on(&[&nodes[0]]).connect().await.expect("loaded by now");
    // Three probes, and the comparison of the new connection with them.
    assert_eq!(nodes[1].heard("INFO").len(), 4);
    let [scripts, others] = [1, 2].map(|at| nodes[at].heard("SCRIPT LOAD").len());
    assert_eq!(scripts, others);
}

/// Its probe succeeded a moment ago, and it gets each script with the first call.
#[tokio::test]
async fn a_cluster_is_opened_although_a_primary_does_not_load_the_scripts() {
    let nodes = three([HERE, HERE]).await;
    nodes[0].closes_after("SCRIPT LOAD");
    nodes[1].says("SCRIPT LOAD", "-LOADING it loads\r\n".to_owned());
    on(&[&nodes[0]])
        .connect()
        .await
        .expect("the other primaries serve");
    assert!(nodes[2].heard("SCRIPT LOAD").len() > 1);
    // A single server is the only one.
    let alone = Fake::new().await;
    let about = info("7.0.0", "1", "master").replace("cluster_enabled:1", "cluster_enabled:0");
    alone.says("INFO", about);
    alone.says("SCRIPT LOAD", "-LOADING it loads\r\n".to_owned());
    let error = RedisStore::connect(format!("redis://{HERE}:{}", alone.port())).await;
    assert!(
        matches!(error, Err(ConnectError::Unreachable { .. })),
        "{error:?}"
    );
}

fn weaknesses(text: &str) -> Vec<FoundWeakness> {
    let mut found = Vec::new();
    Info::parse(text).weaknesses(&mut found);
    found
}

#[test]
fn weaknesses_are_found_in_the_reply_to_info() {
    assert_eq!(
        weaknesses("aof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n"),
        []
    );
    assert_eq!(
        weaknesses("aof_enabled:1\r\nmaxmemory:9\r\nmaxmemory_policy:noeviction\r\n"),
        []
    );
    let found = weaknesses("aof_enabled:0\r\nmaxmemory:9\r\nmaxmemory_policy:volatile-ttl\r\n");
    let expected = [
        (Weakness::AppendOnlyOff, "no"),
        (Weakness::Eviction, "volatile-ttl"),
    ];
    assert_eq!(
        found,
        expected.map(|(weakness, value)| FoundWeakness::new(weakness, value))
    );
    // A server that does not report its settings is not trusted.
    assert_eq!(weaknesses("").len(), 2);
}

#[test]
fn unusable_servers_are_refused() {
    let refused = |text: &str| Info::parse(text).refuse(false).expect_err(text);
    assert!(matches!(
        refused("redis_version:5.0.14"),
        ConnectError::TooOld { .. }
    ));
    assert!(matches!(refused("role:slave"), ConnectError::Replica));
    assert!(matches!(
        refused("cluster_enabled:1"),
        ConnectError::PartOfCluster
    ));
    assert!(Info::parse("cluster_enabled:1").refuse(true).is_ok());
    let replica = Info::parse("role:slave").refuse(true);
    assert!(matches!(replica, Err(ConnectError::Replica)));
}
