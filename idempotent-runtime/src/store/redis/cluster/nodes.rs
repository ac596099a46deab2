//! What a Cluster of real nodes does only in its worst moments.

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

/// The answer that one node has all slots.
fn all(node: &Fake, replicas: &[&Fake]) -> String {
    let nodes = [&[node], replicas].concat();
    let nodes: Vec<_> = nodes.iter().map(|node| (HERE, node.port())).collect();
    slots(&[(0, LAST, &nodes)])
}

fn cluster(seeds: &[&Fake]) -> Arc<Cluster> {
    let patience = Patience {
        connect: Duration::from_secs(1),
        respond: Duration::from_millis(900),
    };
    let seeds: Vec<_> = seeds.iter().map(|seed| seed.info()).collect();
    Cluster::of(&seeds, patience, Handle::current()).expect("a Cluster")
}

async fn renew(cluster: &Arc<Cluster>) -> RedisResult<Value> {
    let scripts = Scripts::new(true);
    let call = scripts.renew.call("idempotent:a", &[b"", b"", b""]);
    cluster.run(&call, true).await
}

fn owner(cluster: &Cluster) -> u16 {
    let owner = cluster.owner(slot(b"idempotent:a")).expect("an owner");
    let place = owner.to_string();
    let (_, port) = place.rsplit_once(':').expect("a port");
    port.parse().expect("a port")
}

/// A former primary that is cut off from the others names itself, and so does its neighbour, sooner than the others.
#[tokio::test]
async fn what_those_say_that_are_cut_off_is_not_believed_for_long() {
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
        cluster.look().await.expect("an answer");
        assert_eq!(owner(&cluster), new.port());
    }
}

/// Two of three that are cut off outvote the third until an operation meets the former primary.
#[tokio::test]
async fn what_an_operation_met_counts_for_more_than_what_most_nodes_say() {
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

/// A node that answers as if it knew nothing of another does not make the store forget it.
#[tokio::test]
async fn a_partial_answer_does_not_replace_a_whole_one() {
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
    // The fuller one of two is believed, although it is slower.
    let more = slots(&[(0, 8192, &[here(&second)]), (8193, LAST, &[unknown])]);
    second.says("CLUSTER SLOTS", more);
    second.delay(Duration::from_millis(20));
    assert!(!cluster.look().await.expect("an answer"), "not a whole one");
    assert!(cluster.gaps().is_empty(), "{}", cluster.gaps());
    let primaries: Vec<_> = cluster
        .slots()
        .iter()
        .map(|range| range.primary.place.clone())
        .collect();
    let second = Place::of(second.info().addr()).expect("a place");
    assert_eq!(primaries, [second.clone(), second]);
}

/// Nothing fails while the last of the nodes that are known goes but for those that it asked before.
#[tokio::test]
async fn nodes_are_found_when_all_others_were_exchanged() {
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

/// Without any error the nodes are asked again when it is time.
#[tokio::test]
async fn a_cluster_in_use_is_looked_at_now_and_then() {
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
    until("a look", || owner(&cluster) == next.port()).await;
    renew(&cluster).await.expect("served");
    assert_eq!(next.heard("EVALSHA").len(), 1);
    assert_eq!(seed.heard("CLUSTER SLOTS").len(), 2, "once");
}

/// A Cluster that stays broken is asked less and less often, and as before when it is well.
#[tokio::test]
async fn looks_that_bring_nothing_become_rare() {
    let [node] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node]);
    cluster.primaries().await.expect("an answer");
    let poor = || match *cluster.looking.borrow() {
        Looking::Resting { poor, .. } => Some(poor),
        Looking::Asking => None,
    };
    node.says("EVALSHA", "-CLUSTERDOWN The cluster is down\r\n".to_owned());
    let down = renew(&cluster).await.expect_err("down");
    assert_eq!(down.code(), Some("CLUSTERDOWN"));
    until("the look", || poor().is_some_and(|poor| poor > 1)).await;
    let asked = node.heard("CLUSTER SLOTS").len();
    assert!(
        (3..6).contains(&asked),
        "{asked} times in two thirds of a second"
    );

    node.says("EVALSHA", ":1\r\n".to_owned());
    renew(&cluster).await.expect("served");
    let well = || {
        cluster.start_looking();
        poor() == Some(0)
    };
    until("a good look", well).await;
}

/// Looks end by themselves, and nothing else keeps the Cluster when its store is gone.
#[tokio::test]
async fn nothing_outlives_the_store() {
    let [seed] = fakes().await;
    seed.says("CLUSTER SLOTS", all(&seed, &[]));
    let cluster = cluster(&[&seed]);
    cluster.primaries().await.expect("an answer");
    cluster.looked().await;
    let gone = Arc::downgrade(&cluster);
    drop(cluster);
    until("the look to end", || gone.strong_count() == 0).await;
}

/// Operations end within the engine's store time-out, whatever the nodes do to them.
#[tokio::test]
async fn repetitions_end() {
    let [node, silent] = fakes().await;
    node.says("CLUSTER SLOTS", all(&node, &[]));
    let cluster = cluster(&[&node, &silent]);
    cluster.primaries().await.expect("an answer");
    node.says(
        "EVALSHA",
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n".to_owned(),
    );
    node.says("CLUSTER SLOTS", "-LOADING Redis is loading\r\n".to_owned());
    silent.says("CLUSTER SLOTS", None);
    node.delay(Duration::from_millis(250));
    let begun = Instant::now();
    let error = renew(&cluster).await.expect_err("refused");
    assert_eq!(error.code(), Some("TRYAGAIN"));
    let (took, sent) = (begun.elapsed(), node.heard("EVALSHA").len());
    assert!(took < Duration::from_millis(1900), "{took:?}");
    assert!((3..=4).contains(&sent), "{sent}");
}

/// The node that a slot is on its way to is told so; the reply counts, whatever it says to being told.
#[tokio::test]
async fn a_good_reply_is_not_hidden_by_what_was_said_to_asking() {
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

/// A node that was found by an operation of a runtime that is gone is reached from others.
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

/// A connection that broke is no reason to believe one node against all others.
#[tokio::test]
async fn what_most_say_of_a_node_counts_for_more_than_its_silence() {
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
        known.judge(Some(&Next::Lost));
        assert!(!cluster.look().await.expect("an answer"), "not a sound one");
        assert_eq!(owner(&cluster), good.port());
    }
}

/// What names the node that refused is believed only if nothing better comes while an operation would wait for it.
#[tokio::test]
async fn a_better_answer_is_waited_for() {
    let [old, near, new] = fakes().await;
    for node in [&old, &near, &new] {
        node.says("CLUSTER SLOTS", all(&old, &[&near, &new]));
    }
    let cluster = cluster(&[&old, &near, &new]);
    cluster.primaries().await.expect("an answer");
    let refused = cluster.owner(0).expect("an owner");
    refused.judge(Some(&Next::Later));
    new.says("CLUSTER SLOTS", all(&new, &[]));
    new.delay(look::LOOKED * 3 / 5);
    assert!(cluster.look().await.expect("an answer"), "a sound one");
    assert_eq!(owner(&cluster), new.port());
}

/// The address of a node has become that of a node of another Cluster, as among containers. It would take our claims.
#[tokio::test]
async fn another_cluster_is_not_believed() {
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
    known.judge(Some(&Next::Later));
    let error = cluster.look().await.expect_err("nobody of ours answers");
    assert_eq!(owner(&cluster), gone.port(), "{error}");
}
