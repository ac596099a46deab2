//! Lists of a store on Redis: that they read no response, pass over the keys of others, and miss no record when the servers
//! change.

use std::collections::{HashMap, HashSet};

use idempotent_runtime::{
    StoreKey,
    store::{
        AnyStore, Store, StoreErrorKind,
        conformance::key,
        inspect::{Cursor, Found, Page, Query, find},
        redis::RedisStore,
    },
};
use tokio::task::block_in_place;

use super::{
    cluster::{start, url},
    hex, on, open,
    permissions::{documented_additions, documented_rule},
};
use crate::{
    servers::redis::Redis,
    toolbox::{acquire_all, chain, done, execute, large, new_claim},
};

async fn page(store: &AnyStore, query: &Query) -> Page {
    let list = store.inspectable().expect("lists");
    list.list(query).await.expect("a page")
}

/// How often each record is shown in all pages, and how many pages that are.
async fn all(store: &AnyStore, query: Query) -> (HashMap<StoreKey, u32>, u32) {
    let (mut seen, mut pages, mut query) = (HashMap::new(), 0, query);
    loop {
        let Page { entries, next, .. } = page(store, &query).await;
        pages += 1;
        assert!(entries.len() <= query.limit(), "{} entries", entries.len());
        for entry in entries {
            *seen.entry(entry.key).or_default() += 1;
        }
        match next {
            Some(next) => query.cursor = Some(next),
            None => return (seen, pages),
        }
    }
}

/// The error of a page, with its causes.
async fn refused(store: &AnyStore, query: &Query) -> (StoreErrorKind, String) {
    let list = store.inspectable().expect("lists");
    let error = list.list(query).await.expect_err("no page");
    (error.kind(), chain(&error))
}

/// The keys of so many records, spread as digests are.
fn keys(records: u32) -> impl Iterator<Item = StoreKey> {
    (0..records).map(|n| {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b9).to_be_bytes());
        StoreKey::from_bytes(bytes)
    })
}

/// So many records in flight.
async fn fill(store: &AnyStore, records: u32) {
    for some in keys(records).collect::<Vec<_>>().chunks(200) {
        for acquired in acquire_all(store, some.iter().copied()).await {
            acquired.expect("acquired");
        }
    }
}

#[tokio::test]
async fn every_record_is_shown_once_among_the_keys_of_others() {
    let Some(redis) = Redis::start() else { return };
    let store = open(on(&redis)).await;
    fill(&store, 2_500).await;
    // Keys of another service, a string that resembles a record, and a record of another prefix.
    let others = "for n = 1, 20000 do redis.call('SET', 'cache:' .. n, n) end return 'OK'";
    assert_eq!(redis.ask(&["EVAL", others, "0"]), "OK");
    redis.ask(&["SET", "idempotent:0707", "x"]);
    redis.ask(&["HSET", &format!("other:{}", "07".repeat(32)), "s", "D"]);
    let expected: HashSet<_> = keys(2_500).collect();
    for limit in [1, 7, 100, 1_000] {
        let (seen, pages) = all(&store, Query::new().with_limit(limit)).await;
        assert_eq!(seen.keys().copied().collect::<HashSet<_>>(), expected);
        assert!(seen.values().all(|times| *times == 1), "pages of {limit}");
        println!("pages of at most {limit}: {pages}");
    }
    let stats = store.inspectable().unwrap().stats(None, 100_000).await;
    let stats = stats.unwrap();
    assert!(stats.is_exact() && stats.in_flight == 2_500, "{stats:?}");
    let some = store.inspectable().unwrap().stats(None, 500).await.unwrap();
    let estimate = some.estimate(some.in_flight);
    assert!((1_500..4_000).contains(&estimate), "{estimate}: {some:?}");
    // One digit less than the whole key is a walk, the whole key a look.
    let whole = hex(&keys(1).next().unwrap());
    let before = redis.calls("scan");
    assert!(matches!(lookup(&store, &whole).await, Found::One(_)));
    assert_eq!(redis.calls("scan"), before);
    assert!(matches!(lookup(&store, &whole[..63]).await, Found::One(_)));
    assert!(redis.calls("scan") > before);
}

async fn lookup(store: &AnyStore, digits: &str) -> Found {
    let found = find(store.inspectable().unwrap(), digits.parse().unwrap());
    found.await.expect("an answer")
}

/// The server's own count of the bytes that it sent.
#[tokio::test]
async fn no_response_is_fetched() {
    let Some(redis) = Redis::start() else { return };
    let store = open(on(&redis)).await;
    execute(&store, &new_claim(key(1)), &large(500_000)).await;
    execute(&store, &new_claim(key(2)), &done()).await;
    let sent = || {
        let info = redis.ask(&["INFO", "stats"]);
        let line = "total_net_output_bytes:";
        let sent = info.lines().find_map(|stat| stat.strip_prefix(line));
        sent.expect("a count")
            .trim()
            .parse::<u64>()
            .expect("a number")
    };
    let before = sent();
    let entries = page(&store, &Query::new()).await.entries;
    let list = store.inspectable().unwrap();
    let stats = list.stats(None, 100).await.unwrap();
    lookup(&store, &hex(&key(1))).await;
    let sent = sent() - before;
    assert!(sent < 100_000, "{sent} bytes");
    assert_eq!(entries.len(), 2);
    assert!(stats.stored_bytes > 500_000, "{stats:?}");
    let largest = entries.iter().map(|entry| entry.stored_bytes).max();
    assert!(largest > Some(500_000), "{entries:?}");
}

/// A record that cannot be read is not passed over in silence.
#[tokio::test]
async fn a_key_that_is_no_record_is_an_error() {
    let Some(redis) = Redis::start() else { return };
    let store = open(on(&redis)).await;
    for set in [&["SET"][..], &["HSET", "s"]] {
        let name = format!("idempotent:{}", hex(&key(1)));
        let command = [&[set[0], &name], &set[1..], &["X"]].concat();
        redis.ask(&command);
        let (kind, why) = refused(&store, &Query::new()).await;
        assert_eq!(kind, StoreErrorKind::Corrupt, "{why}");
        redis.ask(&["DEL", &name]);
    }
    assert_eq!(page(&store, &Query::new()).await.entries, []);
}

/// The next process has another order of its keys, so that a walk that went on would miss some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_from_before_a_restart_is_refused() {
    let Some(mut redis) = Redis::flushing() else {
        return;
    };
    let store = open(on(&redis)).await;
    fill(&store, 50).await;
    let query = Query::new().with_limit(10);
    let next = page(&store, &query).await.next;
    let query = query.after(next);
    page(&store, &query).await;
    block_in_place(|| redis.restart());
    // The first one may meet the broken connection.
    let (mut kind, mut why) = refused(&store, &query).await;
    if kind == StoreErrorKind::Unavailable {
        (kind, why) = refused(&store, &query).await;
    }
    assert_eq!(kind, StoreErrorKind::InvalidCursor, "{why}");
    assert!(why.contains("restarted"), "{why}");
    let list = store.inspectable().unwrap();
    let counted = list.stats(query.cursor.as_ref(), 10).await.unwrap_err();
    assert_eq!(counted.kind(), StoreErrorKind::InvalidCursor);
    let (seen, _) = all(&store, Query::new().with_limit(10)).await;
    assert_eq!(seen.len(), 50);
}

/// A slot that moves takes its records from a node that is listed later to one that was listed before.
#[tokio::test]
async fn a_list_of_a_cluster_misses_no_record_of_a_slot_that_moves() {
    let Some(nodes) = start(&["--appendonly", "yes"]) else {
        return;
    };
    let store = open(RedisStore::builder(url(&nodes))).await;
    fill(&store, 60).await;
    let query = Query::new().with_limit(5);
    let first = page(&store, &query).await;
    let listed: Cursor = first.next.expect("more records");
    let after = query.clone().after(Some(listed));
    page(&store, &after).await;

    // A slot of the last node goes to the first one.
    let ids: Vec<_> = nodes
        .iter()
        .map(|node| node.ask(&["CLUSTER", "MYID"]))
        .collect();
    let (from, to) = (&nodes[2], &nodes[0]);
    let set = |node: &Redis, state: &[&str]| {
        let reply = node.ask(&[&["CLUSTER", "SETSLOT", "11001"], state].concat());
        assert_eq!(reply, "+OK\r\n", "{state:?}");
    };
    set(to, &["IMPORTING", ids[2].trim()]);
    set(from, &["MIGRATING", ids[0].trim()]);
    for query in [&query, &after] {
        let (kind, why) = refused(&store, query).await;
        assert_eq!(kind, StoreErrorKind::Unavailable, "{why}");
        assert!(why.contains("being moved"), "{why}");
    }
    // A whole key is found on either node.
    assert!(matches!(
        lookup(&store, &hex(&keys(1).next().unwrap())).await,
        Found::One(_)
    ));
    for node in [to, from] {
        set(node, &["NODE", ids[0].trim()]);
    }
    let (mut kind, mut why) = refused(&store, &after).await;
    // Until the nodes agree.
    while kind == StoreErrorKind::Unavailable {
        (kind, why) = refused(&store, &after).await;
    }
    assert_eq!(kind, StoreErrorKind::InvalidCursor, "{why}");
    let (seen, _) = all(&store, query).await;
    assert_eq!(seen.len(), 60);
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn the_documented_permissions_are_enough_to_list() {
    let Some(redis) = Redis::start() else { return };
    assert_eq!(redis.ask(&documented_rule()), "+OK\r\n");
    let url = format!("redis://app:pw@127.0.0.1:{}", redis.port());
    let store = open(RedisStore::builder(url)).await;
    execute(&store, &new_claim(key(1)), &done()).await;
    let (kind, why) = refused(&store, &Query::new()).await;
    assert_eq!(kind, StoreErrorKind::Refused, "{why}");
    let additions = documented_additions("listing");
    assert_eq!(additions, ["+scan", "+hstrlen"]);
    for addition in &additions {
        redis.ask(&["ACL", "SETUSER", "app", addition]);
    }
    assert_eq!(page(&store, &Query::new()).await.entries.len(), 1);
    lookup(&store, &hex(&key(1))).await;
    let stats = store.inspectable().unwrap().stats(None, 10).await;
    assert_eq!(stats.unwrap().completed, 1);
}
