use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::super::{
    RedisStore,
    fake::{Fake, info, slots, until},
};
use crate::{
    fingerprint::Fingerprint,
    scope::StoreKey,
    store::{
        Store as _,
        record::{Claim, Write},
        token::Token,
        wake::{Awaited, AwaitedKeys, Wake},
    },
};

/// The slot map in which this node owns all slots.
fn all_slots(node: &Fake) -> String {
    slots(&[(0, 16_383, &[("127.0.0.1", node.port())])])
}

fn key(n: u8) -> StoreKey {
    StoreKey::from_bytes([n; 32])
}

/// An engine on a Cluster of one node, and how often it was woken.
struct Engine {
    awaited: AwaitedKeys,
    woken: Arc<AtomicUsize>,
    store: RedisStore,
}

impl Engine {
    async fn on(node: &Fake) -> Self {
        node.says("CLUSTER SLOTS", all_slots(node));
        let url = format!("redis+cluster://127.0.0.1:{}", node.port());
        let mut builder = RedisStore::builder(url);
        builder.linger = Duration::from_millis(200);
        let store = builder.connect().await.expect("a store");
        let (awaited, woken) = (AwaitedKeys::default(), Arc::<AtomicUsize>::default());
        let wake = Wake::of_engine(&woken, |woken, _| {
            woken.fetch_add(1, Ordering::Relaxed);
        });
        store.attach(wake.telling(awaited.clone()));
        Self {
            awaited,
            woken,
            store,
        }
    }

    fn waits_for(&self, n: u8) -> Awaited {
        self.awaited.begin(key(n))
    }
}

#[tokio::test]
async fn a_process_listens_only_while_somebody_waits_and_then_looks_again() {
    let node = Fake::new().await;
    let engine = Engine::on(&node).await;
    let connections = || node.heard("HELLO").len();
    let channel = format!("SSUBSCRIBE {}", engine.store.0.names.channel(&key(1)));
    assert_eq!(connections(), 0);

    let two = [engine.waits_for(1), engine.waits_for(1)];
    until("the look", || engine.woken.load(Ordering::Relaxed) == 1).await;
    assert_eq!(node.heard("SSUBSCRIBE"), [&*channel]);
    let [one, other] = two;
    drop(one);
    let another = engine.waits_for(2);
    until("the other key", || node.heard("SSUBSCRIBE").len() == 2).await;
    // The second waiter for the first key still waits.
    assert!(node.heard("SUNSUBSCRIBE").is_empty());
    drop(other);
    until("the first key", || node.heard("SUNSUBSCRIBE").len() == 1).await;
    assert_eq!(connections(), 1);

    let listening = node.open();
    drop(another);
    until("the end", || node.open() == listening - 1).await;
    let _again = engine.waits_for(1);
    until("a connection", || connections() == 2).await;
}

/// A missing permission does not mean that the topology has changed.
#[tokio::test]
async fn a_user_without_permission_to_subscribe_causes_no_topology_refresh() {
    for (refusal, refreshes) in [("NOPERM no permissions", false), ("LOADING it loads", true)] {
        let node = Fake::new().await;
        node.says("SSUBSCRIBE", format!("-{refusal}\r\n"));
        let engine = Engine::on(&node).await;
        let before = node.heard("CLUSTER SLOTS").len();
        let _waiting = engine.waits_for(1);
        until("attempts", || node.heard("SSUBSCRIBE").len() == 3).await;
        let after = node.heard("CLUSTER SLOTS").len();
        assert_eq!(after > before, refreshes, "{refusal}");
    }
}

/// Each subscription wakes the waiters.
#[tokio::test]
async fn a_server_that_ends_subscriptions_is_asked_with_back_off() {
    let node = Fake::new().await;
    node.closes_after("SSUBSCRIBE");
    let engine = Engine::on(&node).await;
    let _waiting = engine.waits_for(1);
    until("the first", || !node.heard("SSUBSCRIBE").is_empty()).await;
    let begun = Instant::now();
    until("four more", || node.heard("SSUBSCRIBE").len() == 5).await;
    // 50, 100, 200 and 400 ms at least.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(700), "{took:?}");
}

/// A record's messages go to the node that has its slot, and to no other one.
#[tokio::test]
async fn the_listener_follows_a_slot() {
    let [old, new] = [Fake::new().await, Fake::new().await];
    let engine = Engine::on(&old).await;
    let _waiting = engine.waits_for(1);
    until("the listener", || old.heard("SSUBSCRIBE").len() == 1).await;
    assert!(new.heard("SSUBSCRIBE").is_empty());

    old.says("CLUSTER SLOTS", all_slots(&new));
    new.says("CLUSTER SLOTS", all_slots(&new));
    old.says("EVALSHA", format!("-MOVED 1 127.0.0.1:{}\r\n", new.port()));
    let minute = Duration::from_secs(60);
    let fingerprint = Fingerprint::from_bytes([1; 32]);
    let claim = Claim::new(key(1), fingerprint, Token::random(), minute, minute);
    let renewed = engine.store.renew(&claim.held()).await;
    assert_eq!(renewed.expect("served"), Write::Applied);
    until("the listener", || new.heard("SSUBSCRIBE").len() == 1).await;
}

/// A server before version 7 has no sharded channels.
#[tokio::test]
async fn an_older_server_is_asked_for_plain_channels() {
    let node = Fake::new().await;
    node.says("INFO", info("6.2.0", "1", "master"));
    let engine = Engine::on(&node).await;
    let _waiting = engine.waits_for(1);
    until("the listener", || node.heard("SUBSCRIBE").len() == 1).await;
    let released = engine.store.release(&key(1), &Token::random()).await;
    released.expect("served");
    let sent = node.heard("EVALSHA").pop().expect("a script");
    assert!(sent.contains(" PUBLISH idempotent:done:"), "{sent}");
}
