//! A server at its memory limit: claims whose reply was lost go on, and replays are answered.

use std::time::Duration;

use idempotent_runtime::{
    Idempotency,
    store::{Store, StoreErrorKind, Write, conformance::key, redis::RedisStoreBuilder},
};
use tokio::task::block_in_place;

use super::{at, on, open};
use crate::{
    proxy::Proxy,
    servers::{redis::Redis, until},
    service::{Answer, Executions, Service, paid},
    toolbox::{FIRST, large, new_claim, replays},
};

/// A service whose store reaches its server by a proxy.
struct Limited {
    redis: Redis,
    proxy: Proxy,
    service: Service,
}

impl Limited {
    async fn start(
        settings: impl FnOnce(&Redis, RedisStoreBuilder) -> RedisStoreBuilder,
    ) -> Option<Self> {
        let redis = Redis::start()?;
        let proxy = Proxy::to(redis.port());
        let store = open(settings(&redis, at(proxy.port()))).await;
        // The pause before the engine repeats an acquire is a fiftieth of this.
        let engine = Idempotency::builder().store_timeout(Duration::from_secs(60));
        let service = Service::with(engine, store, &Executions::default());
        Some(Self {
            redis,
            proxy,
            service,
        })
    }

    fn limit(&self, bytes: &str) {
        let reply = self.redis.ask(&["CONFIG", "SET", "maxmemory", bytes]);
        assert_eq!(reply, "+OK\r\n");
    }

    /// The server carries the first acquire out, and its reply is lost. When the store reaches the server again, it is full.
    async fn pay_while_it_fills(&self, key: &str) -> Answer {
        let filled = async {
            block_in_place(|| {
                until("the lost reply", || (self.proxy.lost() == 1).then_some(()));
                self.limit("1");
                self.proxy.refuse(false);
            });
        };
        self.proxy.lose_next_reply();
        self.proxy.refuse(true);
        tokio::join!(self.service.pay(key), filled).0
    }

    async fn executes_once_and_replays(&self) {
        let service = &self.service;
        assert_eq!(service.pay("before").await, paid(1, false));
        assert_eq!(self.pay_while_it_fills("during").await, paid(2, false));
        assert_eq!(service.pay("during").await, paid(2, true));
        assert_eq!(service.pay("before").await, paid(1, true));

        // The server has no room for this key until its limit is raised; then the key executes.
        for _ in 0..2 {
            let refused = service.pay("after").await;
            assert_eq!(refused.status, 503, "{refused:?}");
        }
        assert_eq!(service.executions().count(), 2);
        self.limit("0");
        assert_eq!(service.pay("after").await, paid(3, false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_reply_was_lost_before_the_server_was_full_is_executed_once() {
    if let Some(limited) = Limited::start(|_, store| store).await {
        limited.executes_once_and_replays().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_claim_whose_reply_was_lost_before_the_server_was_full_is_executed_once() {
    let mut replica = None;
    let limited = Limited::start(|primary, store| {
        replica = block_in_place(|| primary.replica());
        store.wait_replicas(1, Duration::from_secs(5))
    });
    let Some(limited) = limited.await else { return };
    limited.executes_once_and_replays().await;

    // A failover would find each outcome on the replica.
    let records = replica.expect("a replica").ask(&["DBSIZE"]);
    assert_eq!(records, ":3\r\n");
}

/// The server refuses each new claim, which must not cost a connection each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_claim_with_confirmation_keeps_its_connection() {
    let limited = Limited::start(|_, store| store.wait_replicas(1, Duration::from_millis(1)));
    let Some(limited) = limited.await else { return };
    limited.limit("1");
    let before = limited.proxy.accepted();
    for n in 0..5 {
        let refused = limited.service.pay(&format!("key-{n}")).await;
        assert_eq!(refused.status, 503, "{refused:?}");
    }
    let made = limited.proxy.accepted() - before;
    assert!(made <= 2, "{made} connections for five refusals");
}

#[tokio::test]
async fn a_full_server_refuses_new_keys_and_completes_claimed_ones() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let store = open(on(&redis)).await;
    let [mine, abandoned, other] = [1, 2, 3].map(|n| new_claim(key(n)));
    store.acquire(&mine).await.unwrap();
    store.acquire(&abandoned).await.unwrap();
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);

    let error = store.acquire(&other).await.expect_err("no room");
    assert_eq!(error.kind(), StoreErrorKind::Full, "{error:?}");
    let repeated = store.acquire(&mine).await.unwrap();
    assert_eq!(repeated, FIRST, "the first reply may have been lost");
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    let completed = store.complete(&mine.held(), &large(1 << 20)).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    let write = store.abandon(&key(2), &abandoned.token).await;
    assert_eq!(write.unwrap(), Write::Applied);
    replays(&store, key(1), &large(1 << 20)).await;
}
