//! Failures of a Cluster that are hard to provoke with real nodes.

use super::*;
use crate::store::redis::{
    fake::{Fake, slots, until},
    script::Scripts,
};

const HERE: &str = "127.0.0.1";
const LAST: u16 = SLOTS - 1;

async fn fakes<const N: usize>() -> [Fake; N] {
    let mut fakes = Vec::new();
    for _ in 0..N {
        fakes.push(Fake::new().await);
    }
    fakes.try_into().ok().expect("as many as asked for")
}

/// The slot map in which one node owns all slots.
fn all(node: &Fake, replicas: &[&Fake]) -> String {
    let nodes = [&[node], replicas].concat();
    let nodes: Vec<_> = nodes.iter().map(|node| (HERE, node.port())).collect();
    slots(&[(0, LAST, &nodes)])
}

fn cluster(seeds: &[&Fake]) -> Arc<Cluster> {
    let time_outs = TimeOuts {
        connect: Duration::from_secs(1),
        response: Duration::from_millis(900),
    };
    let seeds: Vec<_> = seeds.iter().map(|seed| seed.info()).collect();
    Cluster::of(&seeds, time_outs, Handle::current()).expect("a Cluster")
}

async fn renew(cluster: &Arc<Cluster>) -> RedisResult<Value> {
    let scripts = Scripts::new(true);
    let call = scripts.renew.call("idempotent:a", &[b"", b"", b""]);
    cluster.run(&call, true).await
}

fn owner(cluster: &Cluster) -> u16 {
    let owner = cluster.owner(slot(b"idempotent:a")).expect("an owner");
    let address = owner.to_string();
    let (_, port) = address.rsplit_once(':').expect("a port");
    port.parse().expect("a port")
}

/// A partitioned former primary and its neighbour name it, and answer sooner than the other nodes.
#[tokio::test]
async fn the_view_of_partitioned_nodes_is_not_used_for_long() {
    let [old, near, new, other] = fakes().await;
    let before = all(&old, &[&near, &new, &other]);
    for node in [&old, &near, &new, &other] {
        node.says("CLUSTER SLOTS", before.clone());
    }
    let cluster = cluster(&[&near, &new, &other]);
    cluster.primaries().await.expect("an answer");
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    assert_eq!(old.heard("EVALSHA").len(), 1);

    let down = "-CLUSTERDOWN The cluster is down\r\n".to_owned();
    old.says("EVALSHA", down);
    let after = all(&new, &[&other]);
    for node in [&new, &other] {
        node.says("CLUSTER SLOTS", after.clone());
        node.delay(Duration::from_millis(20));
    }
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    assert_eq!(owner(&cluster), new.port());
    for node in [&new, &other] {
        // Longer than the next answer is normally waited for.
        node.delay(Duration::from_millis(150));
    }
    for _ in 0..8 {
        cluster.refresh().await.expect("an answer");
        assert_eq!(owner(&cluster), new.port());
    }
}

/// Two partitioned nodes of three outvote the third until an operation meets the former primary.
#[tokio::test]
async fn a_refused_operation_outweighs_the_view_of_most_nodes() {
    let [old, near, new] = fakes().await;
    for node in [&old, &near] {
        node.says("CLUSTER SLOTS", all(&old, &[]));
    }
    new.says("CLUSTER SLOTS", all(&new, &[]));
    old.says("EVALSHA", "-CLUSTERDOWN The cluster is down\r\n".to_owned());
    new.delay(Duration::from_millis(20));
    let cluster = cluster(&[&old, &near, &new]);
    cluster.primaries().await.expect("an answer");
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    assert_eq!(owner(&cluster), new.port());
}

/// The store goes on using a node that another node does not report any more.
#[tokio::test]
async fn a_partial_view_does_not_replace_a_complete_map() {
    let [first, second] = fakes().await;
    let here = |node: &Fake| (HERE, node.port());
    let halves = [
        (0, 8191, &[here(&first)][..]),
        (8192, LAST, &[here(&second)]),
    ];
    first.says("CLUSTER SLOTS", slots(&halves));
    second.says("CLUSTER SLOTS", slots(&halves));
    let cluster = cluster(&[&first]);
    assert_eq!(cluster.primaries().await.expect("an answer").len(), 2);

    let unknown = ("?", second.port());
    first.says(
        "CLUSTER SLOTS",
        slots(&[(0, 8191, &[here(&first)]), (8192, LAST, &[unknown])]),
    );
    // The more complete of two views is used, although it arrives later.
    let more = slots(&[(0, 8192, &[here(&second)]), (8193, LAST, &[unknown])]);
    second.says("CLUSTER SLOTS", more);
    second.delay(Duration::from_millis(20));
    assert!(
        !cluster.refresh().await.expect("an answer"),
        "not a whole one"
    );
    assert!(cluster.gaps().is_empty(), "{}", cluster.gaps());
    let primaries: Vec<_> = cluster
        .slots()
        .iter()
        .map(|range| range.primary.address.clone())
        .collect();
    let second = NodeAddress::of(second.info().addr()).expect("an address");
    assert_eq!(primaries, [second.clone(), second]);
}

/// The replica in the last view is asked when all primaries and seeds are gone.
#[tokio::test]
async fn the_topology_is_found_through_a_replica_when_all_other_nodes_are_gone() {
    let [mut seed, mut primary, replica] = fakes().await;
    for node in [&seed, &primary, &replica] {
        node.says("CLUSTER SLOTS", all(&primary, &[&replica]));
    }
    let cluster = cluster(&[&seed]);
    cluster.primaries().await.expect("an answer");
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    seed.stop().await;
    primary.stop().await;
    replica.says("CLUSTER SLOTS", all(&replica, &[]));
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    assert_eq!(owner(&cluster), replica.port());
}

/// Without any error.
#[tokio::test]
async fn the_topology_of_a_cluster_in_use_is_refreshed_periodically() {
    let [seed, next] = fakes().await;
    seed.says("CLUSTER SLOTS", all(&seed, &[]));
    let cluster = cluster(&[&seed]);
    cluster.primaries().await.expect("an answer");
    seed.says("CLUSTER SLOTS", all(&next, &[]));
    renew(&cluster).await.expect("served");
    assert_eq!(
        seed.heard("CLUSTER SLOTS").len(),
        1,
        "not before it is time"
    );
    sleep(Duration::from_millis(5)).await;
    cluster.due.store(0, Ordering::Relaxed);
    renew(&cluster).await.expect("served");
    until("the refresh", || owner(&cluster) == next.port()).await;
    renew(&cluster).await.expect("served");
    assert_eq!(next.heard("EVALSHA").len(), 1);
    assert_eq!(seed.heard("CLUSTER SLOTS").len(), 2, "once");
}

/// Until one of them succeeds.
#[tokio::test]
async fn failing_refreshes_back_off() {
    let [node] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node]);
    cluster.primaries().await.expect("an answer");
    let failures = || match *cluster.refresh_state.borrow() {
        Refresh::Idle { failures, .. } => Some(failures),
        Refresh::Running => None,
    };
    node.says("EVALSHA", "-CLUSTERDOWN The cluster is down\r\n".to_owned());
    let down = renew(&cluster).await.expect_err("down");
    assert_eq!(down.code(), Some("CLUSTERDOWN"));
    until("the refreshes", || {
        failures().is_some_and(|failures| failures > 1)
    })
    .await;
    let asked = node.heard("CLUSTER SLOTS").len();
    assert!(
        (3..6).contains(&asked),
        "{asked} times in two thirds of a second"
    );

    node.says("EVALSHA", ":1\r\n".to_owned());
    renew(&cluster).await.expect("served");
    let well = || {
        cluster.start_refresh();
        failures() == Some(0)
    };
    until("a successful refresh", well).await;
}

/// A refresh ends by itself, and no other task keeps the Cluster alive when its store is gone.
#[tokio::test]
async fn nothing_outlives_the_store() {
    let [seed] = fakes().await;
    seed.says("CLUSTER SLOTS", all(&seed, &[]));
    let cluster = cluster(&[&seed]);
    cluster.primaries().await.expect("an answer");
    cluster.wait_for_refresh().await;
    let gone = Arc::downgrade(&cluster);
    drop(cluster);
    until("the refresh to end", || gone.strong_count() == 0).await;
}

/// Whatever the nodes answer.
#[tokio::test]
async fn repetitions_end_within_the_engines_store_time_out() {
    let [node, unresponsive] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node, &unresponsive]);
    cluster.primaries().await.expect("an answer");
    node.says(
        "EVALSHA",
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n".to_owned(),
    );
    node.says("CLUSTER SLOTS", "-LOADING Redis is loading\r\n".to_owned());
    unresponsive.says("CLUSTER SLOTS", None);
    node.delay(Duration::from_millis(250));
    let begun = Instant::now();
    let error = renew(&cluster).await.expect_err("refused");
    assert_eq!(error.code(), Some("TRYAGAIN"));
    let (took, sent) = (begun.elapsed(), node.heard("EVALSHA").len());
    assert!(took < Duration::from_millis(1900), "{took:?}");
    assert!((3..=4).contains(&sent), "{sent}");
}

/// The reply to the operation counts; that to `ASKING` only explains an error.
#[tokio::test]
async fn an_error_of_asking_does_not_hide_a_good_reply() {
    let [from, to] = fakes().await;
    for node in [&from, &to] {
        node.says("CLUSTER SLOTS", all(&from, &[]));
    }
    from.says("EVALSHA", format!("-ASK 1 {HERE}:{}\r\n", to.port()));
    to.says("ASKING", "-ERR no need to ask\r\n".to_owned());
    let cluster = cluster(&[&from]);
    cluster.primaries().await.expect("an answer");
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    to.says("EVALSHA", "-MOVED 1 127.0.0.1:1\r\n".to_owned());
    let error = renew(&cluster).await.expect_err("not asked right");
    assert!(error.to_string().contains("no need to ask"), "{error}");
}

/// An operation on one runtime discovers a node, which is used on another runtime after the first has ended.
#[test]
fn nodes_live_on_the_runtime_of_the_store() {
    let runtime = || {
        let builder = &mut tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let (lasting, passing) = (runtime(), runtime());
    let (cluster, _old, mut new) = lasting.block_on(async {
        let [old, new] = fakes().await;
        for node in [&old, &new] {
            node.says("CLUSTER SLOTS", all(&old, &[]));
        }
        old.says("EVALSHA", format!("-MOVED 1 {HERE}:{}\r\n", new.port()));
        let cluster = cluster(&[&old]);
        cluster.primaries().await.expect("an answer");
        for node in [&old, &new] {
            node.says("CLUSTER SLOTS", all(&new, &[]));
        }
        (cluster, old, new)
    });
    let found = passing.block_on(renew(&cluster));
    assert_eq!(found.expect("served"), Value::Int(1));
    drop(passing);
    let again = async { tokio::time::timeout(Duration::from_secs(10), renew(&cluster)).await };
    let again = lasting.block_on(again).expect("an end");
    assert_eq!(again.expect("served"), Value::Int(1));
    lasting.block_on(new.stop());
}

/// A broken connection is not a reason to use the view of one node against that of all others.
#[tokio::test]
async fn the_view_of_most_nodes_outweighs_an_unreachable_primary() {
    let [good, near, stale] = fakes().await;
    for node in [&good, &near] {
        node.says("CLUSTER SLOTS", all(&good, &[&stale]));
    }
    stale.says("CLUSTER SLOTS", all(&stale, &[]));
    near.delay(Duration::from_millis(20));
    let cluster = cluster(&[&good, &near, &stale]);
    cluster.primaries().await.expect("an answer");
    for _ in 0..3 {
        let known = cluster.owner(0).expect("an owner");
        known.record_result(Some(&Next::Lost));
        assert!(
            !cluster.refresh().await.expect("an answer"),
            "not a sound one"
        );
        assert_eq!(owner(&cluster), good.port());
    }
}

/// A view that names the node that refused is used only if no better one arrives while operations wait.
#[tokio::test]
async fn a_refresh_waits_for_a_better_view() {
    let [old, near, new] = fakes().await;
    for node in [&old, &near, &new] {
        node.says("CLUSTER SLOTS", all(&old, &[&near, &new]));
    }
    let cluster = cluster(&[&old, &near, &new]);
    cluster.primaries().await.expect("an answer");
    let refused = cluster.owner(0).expect("an owner");
    refused.record_result(Some(&Next::Later));
    new.says("CLUSTER SLOTS", all(&new, &[]));
    new.delay(refresh::REFRESH_WAIT * 3 / 5);
    assert!(cluster.refresh().await.expect("an answer"), "a sound one");
    assert_eq!(owner(&cluster), new.port());
}

/// A node of another Cluster, which would accept the claims, got the address of a former node, as among containers.
#[tokio::test]
async fn the_view_of_another_cluster_is_ignored() {
    let [gone, ours, theirs] = fakes().await;
    for node in [&gone, &ours, &theirs] {
        node.says("CLUSTER SLOTS", all(&gone, &[&ours, &theirs]));
    }
    let cluster = cluster(&[&gone, &ours, &theirs]);
    cluster.primaries().await.expect("an answer");
    theirs.says(
        "CLUSTER SLOTS",
        all(&theirs, &[]).replace("$2\r\nid", "$5\r\nother"),
    );
    for node in [&gone, &ours] {
        node.says("CLUSTER SLOTS", "-LOADING Redis is loading\r\n".to_owned());
    }
    let known = cluster.owner(0).expect("an owner");
    known.record_result(Some(&Next::Later));
    let error = cluster
        .refresh()
        .await
        .expect_err("no node of this Cluster answers");
    assert_eq!(owner(&cluster), gone.port(), "{error}");
}
