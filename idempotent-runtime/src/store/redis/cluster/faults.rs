//! Failures of a Cluster that are hard to provoke with real nodes.

use super::*;
use crate::store::redis::{
    fake::{self, Fake, slots, until},
    script::Scripts,
};

const HERE: &str = "127.0.0.1";
const LAST: u16 = 16_383;

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

/// The same of another Cluster, whose nodes have other ids.
fn all_of_another(node: &Fake) -> String {
    all(node, &[]).replace("$2\r\nid", "$5\r\nother")
}

/// An open Cluster by these nodes.
async fn cluster(seeds: &[&Fake]) -> Arc<Cluster> {
    let time_outs = TimeOuts {
        connect: Duration::from_millis(400),
        response: Duration::from_millis(700),
    };
    let seeds = seeds.iter().map(|seed| seed.info()).collect();
    let cluster = Cluster::of(seeds, time_outs, Handle::current()).expect("a Cluster");
    let view = cluster.view().await.expect("a view");
    cluster
        .open(view, Accepted::default())
        .await
        .expect("a connection");
    cluster
}

async fn run(cluster: &Arc<Cluster>, after_loss: bool) -> RedisResult<Value> {
    let scripts = Scripts::new(true);
    let call = scripts.renew.call("idempotent:a", &[b"", b"", b""]);
    cluster.run(&call, after_loss).await
}

async fn renew(cluster: &Arc<Cluster>) -> RedisResult<Value> {
    run(cluster, true).await
}

#[test]
fn errors_before_and_after_execution_are_distinguished() {
    let after = |line: &str| {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes());
        let error = value.and_then(Value::extract_error).expect_err("an error");
        Next::after(&error)
    };
    for refused in [
        "MOVED 1 a:1",
        "ASK 1 a:1",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CLUSTERDOWN The cluster is down",
        "READONLY You can't write against a read only replica.",
    ] {
        assert_eq!(after(refused), Next::Refused, "{refused}");
    }
    let loading = "LOADING Redis is loading the dataset in memory";
    assert_eq!(after(loading), Next::NotSent);
    for end in ["OOM command not allowed", "NOPERM no", "ERR unknown"] {
        assert_eq!(after(end), Next::End, "{end}");
    }
    let io = |kind| Next::after(&RedisError::from(std::io::Error::from(kind)));
    assert_eq!(io(std::io::ErrorKind::BrokenPipe), Next::Lost);
    assert_eq!(io(std::io::ErrorKind::TimedOut), Next::End);
}

/// The client alone would send it up to so many times, and look for the slots' owner in between.
#[tokio::test]
async fn an_operation_whose_reply_was_lost_is_sent_once_more_or_not_at_all() {
    for (after_loss, sent) in [(false, 1), (true, 2)] {
        let [node, other] = fakes().await;
        for fake in [&node, &other] {
            fake.says("CLUSTER SLOTS", all(&node, &[&other]));
            fake.says("EVALSHA", None);
        }
        let cluster = cluster(&[&node]).await;
        // While the connection is made again, the client asks any other node.
        for fake in [&node, &other] {
            fake.closes_after("EVALSHA");
        }
        let error = run(&cluster, after_loss).await.expect_err("no reply");
        assert!(error.is_connection_dropped(), "{error}");
        let heard = [&node, &other].map(|fake| fake.heard("EVALSHA").len());
        assert_eq!(heard.iter().sum::<usize>(), sent);
    }
}

/// Without a reply it is not sent again at all.
#[tokio::test]
async fn an_operation_that_times_out_is_sent_once() {
    let [node] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node]).await;
    node.says("EVALSHA", None);
    let error = renew(&cluster).await.expect_err("no reply");
    assert!(error.is_timeout(), "{error}");
    assert_eq!(node.heard("EVALSHA").len(), 1);
}

/// A redirection is followed also for an operation that must not be repeated: the first node did not execute it.
#[tokio::test]
async fn slots_that_moved_are_found() {
    let [old, new] = fakes().await;
    for node in [&old, &new] {
        node.says("CLUSTER SLOTS", all(&old, &[&new]));
    }
    let cluster = cluster(&[&old, &new]).await;
    for node in [&old, &new] {
        node.says("CLUSTER SLOTS", all(&new, &[&old]));
    }
    old.says("EVALSHA", format!("-MOVED 1 {HERE}:{}\r\n", new.port()));
    let moved = run(&cluster, false).await;
    assert_eq!(moved.expect("served"), Value::Int(1));
    assert_eq!(old.heard("EVALSHA").len(), 1);
    assert_eq!(new.heard("EVALSHA").len(), 1);
}

/// The partitioned former primary answers, and does not know where its slots are.
#[tokio::test]
async fn a_node_that_is_cut_off_from_its_cluster_is_left() {
    let [old, new] = fakes().await;
    for node in [&old, &new] {
        node.says("CLUSTER SLOTS", all(&old, &[&new]));
    }
    let cluster = cluster(&[&old, &new]).await;
    old.says("EVALSHA", "-CLUSTERDOWN The cluster is down\r\n".to_owned());
    old.says("CLUSTER SLOTS", None);
    new.says("CLUSTER SLOTS", all(&new, &[]));
    let end = Instant::now() + Duration::from_secs(20);
    while renew(&cluster).await.is_err() {
        assert!(Instant::now() < end, "the slots' next owner is not found");
    }
    assert_eq!(new.heard("EVALSHA").len(), 1);
}

/// A node that accepts connections and does not answer, as on a machine that hangs.
#[tokio::test]
async fn a_silent_node_is_left_for_the_next_owner_of_its_slots() {
    let [old, new] = fakes().await;
    for node in [&old, &new] {
        node.says("CLUSTER SLOTS", all(&old, &[&new]));
    }
    let cluster = cluster(&[&old, &new]).await;
    old.says("", None);
    new.says("CLUSTER SLOTS", all(&new, &[]));
    let end = Instant::now() + Duration::from_secs(20);
    while renew(&cluster).await.is_err() {
        assert!(Instant::now() < end, "the slots' next owner is not found");
    }
    assert_eq!(new.heard("EVALSHA").len(), 1);
}

/// The replica in the last view is asked when all other nodes are gone.
#[tokio::test]
async fn the_topology_is_found_through_a_replica_when_all_other_nodes_are_gone() {
    let [mut seed, mut primary, replica] = fakes().await;
    for node in [&seed, &primary, &replica] {
        node.says("CLUSTER SLOTS", all(&primary, &[&replica]));
    }
    let cluster = cluster(&[&seed]).await;
    assert_eq!(renew(&cluster).await.expect("served"), Value::Int(1));
    seed.stop().await;
    primary.stop().await;
    replica.says("CLUSTER SLOTS", all(&replica, &[]));
    let end = Instant::now() + Duration::from_secs(20);
    while renew(&cluster).await.is_err() {
        assert!(Instant::now() < end, "the replica is not asked");
    }
    assert_eq!(replica.heard("EVALSHA").len(), 1);
}

/// Whatever the nodes answer.
#[tokio::test]
async fn repetitions_end_within_the_engines_store_time_out() {
    let [node] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node]).await;
    let again = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    node.says("EVALSHA", again.to_owned());
    node.delay(Duration::from_millis(120));
    let begun = Instant::now();
    let error = renew(&cluster).await.expect_err("refused");
    assert_eq!(error.code(), Some("TRYAGAIN"));
    let (took, sent) = (begun.elapsed(), node.heard("EVALSHA").len());
    assert!(took < Duration::from_millis(1900), "{took:?}");
    assert!((3..=6).contains(&sent), "{sent}");
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
    let cluster = cluster(&[&from]).await;
    let asked = run(&cluster, false).await;
    assert_eq!(asked.expect("served"), Value::Int(1));
    to.says("EVALSHA", "-MOVED 1 127.0.0.1:1\r\n".to_owned());
    let error = renew(&cluster).await.expect_err("not asked right");
    assert!(error.to_string().contains("no need to ask"), "{error}");
}

/// All nodes of a Cluster in use are replaced one by one, without an error of an operation.
#[tokio::test]
async fn the_nodes_of_a_cluster_in_use_are_compared_periodically() {
    let [seed, next] = fakes().await;
    seed.says("CLUSTER SLOTS", all(&seed, &[]));
    let cluster = cluster(&[&seed]).await;
    renew(&cluster).await.expect("served");
    let before = seed.heard("CLUSTER SLOTS").len();
    seed.says("CLUSTER SLOTS", all(&seed, &[&next]));
    renew(&cluster).await.expect("served");
    assert_eq!(seed.heard("CLUSTER SLOTS").len(), before, "not due");
    cluster.due.store(0, Ordering::Relaxed);
    sleep(Duration::from_millis(5)).await;
    renew(&cluster).await.expect("served");
    let known = || cluster.nodes().known().nodes().count();
    until("the view", || known() == 2).await;
    renew(&cluster).await.expect("served");
    // As the known primary, and as the node that the client chooses.
    assert_eq!(seed.heard("CLUSTER SLOTS").len(), before + 2, "once");
}

/// A comparison ends by itself, and no other task keeps the Cluster alive when its store is gone.
#[tokio::test]
async fn nothing_outlives_the_store() {
    let [seed] = fakes().await;
    seed.says("CLUSTER SLOTS", all(&seed, &[]));
    let cluster = cluster(&[&seed]).await;
    cluster.compare_soon();
    let gone = Arc::downgrade(&cluster);
    drop(cluster);
    until("the comparison to end", || gone.strong_count() == 0).await;
}

/// The address of a node was given to a node of another Cluster, which would accept the claims.
#[tokio::test]
async fn no_operation_is_carried_out_by_another_cluster() {
    let [ours, theirs] = fakes().await;
    for node in [&ours, &theirs] {
        node.says("CLUSTER SLOTS", all(&ours, &[&theirs]));
    }
    let cluster = cluster(&[&ours, &theirs]).await;
    renew(&cluster).await.expect("served");
    for node in [&ours, &theirs] {
        node.says("CLUSTER SLOTS", all_of_another(&theirs));
    }
    // As it is noticed in the end, at the latest a minute later.
    cluster.compare_soon();
    let foreign = || cluster.nodes().has_refused();
    until("the comparison", foreign).await;
    for _ in 0..2 {
        let error = renew(&cluster).await.expect_err("another Cluster");
        assert!(error.to_string().contains("another Cluster"), "{error}");
    }
    assert!(theirs.heard("EVALSHA").is_empty());

    // The own nodes are back.
    for node in [&ours, &theirs] {
        node.says("CLUSTER SLOTS", all(&ours, &[&theirs]));
    }
    // The operations look themselves: no listener does it here, and the next comparison is not due.
    let end = Instant::now() + Duration::from_secs(20);
    while renew(&cluster).await.is_err() {
        assert!(Instant::now() < end, "nobody looks for the own nodes");
        sleep(Duration::from_millis(5)).await;
    }
}

/// One of two nodes has an address that another Cluster got. It is asked itself: the other node knows nothing of it.
#[tokio::test]
async fn one_node_of_another_cluster_is_enough() {
    let [ours, theirs] = fakes().await;
    let half = |node: &Fake| [(HERE, node.port())];
    let both = slots(&[(0, 8_000, &half(&ours)), (8_001, LAST, &half(&theirs))]);
    for node in [&ours, &theirs] {
        node.says("CLUSTER SLOTS", both.clone());
    }
    let cluster = cluster(&[&ours, &theirs]).await;
    theirs.says("CLUSTER SLOTS", all_of_another(&theirs));
    cluster.due.store(0, Ordering::Relaxed);
    sleep(REST).await;
    renew(&cluster).await.expect("served, and compared");
    until("the comparison", || cluster.nodes().has_refused()).await;
    let sent = theirs.heard("EVALSHA").len();
    for _ in 0..5 {
        let error = renew(&cluster).await.expect_err("another Cluster");
        assert!(error.to_string().contains("another Cluster"), "{error}");
    }
    assert_eq!(theirs.heard("EVALSHA").len(), sent);
}

/// The client makes a lost connection again by itself, to whatever has the address by then.
#[tokio::test]
async fn after_a_loss_nothing_is_sent_before_the_node_has_answered() {
    let [node] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node]).await;
    renew(&cluster).await.expect("served");
    node.says("EVALSHA", None);
    node.closes_after("EVALSHA");
    node.answers("CLUSTER SLOTS", {
        let theirs = all_of_another(&node);
        move |_| Some(theirs.clone())
    });
    let error = renew(&cluster).await.expect_err("another Cluster");
    assert!(error.is_connection_dropped(), "the first error: {error}");
    renew(&cluster).await.expect_err("another Cluster");
    // The one before, and the one whose connection was lost.
    assert_eq!(node.heard("EVALSHA").len(), 2);
}

/// A node that does not keep what it acknowledges gets no operation; it does again when that has changed.
#[tokio::test]
async fn a_node_that_became_weak_gets_no_operation() {
    let [node] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node]).await;
    node.says("INFO", fake::info("7.0.0", "0", "master"));
    cluster.due.store(0, Ordering::Relaxed);
    sleep(REST).await;
    renew(&cluster).await.expect("served, and compared");
    until("the comparison", || cluster.nodes().has_refused()).await;
    let error = renew(&cluster).await.expect_err("weak");
    assert!(error.to_string().contains("appendonly"), "{error}");
    node.says("INFO", fake::info("7.0.0", "1", "master"));
    let end = Instant::now() + Duration::from_secs(20);
    while renew(&cluster).await.is_err() {
        assert!(Instant::now() < end, "nobody asks the node again");
        sleep(Duration::from_millis(5)).await;
    }
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
        let cluster = cluster(&[&old]).await;
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
