//! A server at its memory limit, met by an engine: claims whose reply was lost go on, and replays are answered.

use std::time::Duration;

use idempotent_runtime::{
    Idempotency,
    store::{
        Acquisition, Outcome, Store, StoreErrorKind, Write,
        conformance::{key, response},
        redis::{RedisStore, RedisStoreBuilder},
    },
};
use tokio::task::block_in_place;

use super::on;
use crate::{
    proxy::Proxy,
    servers::{redis::Redis, until},
    service::{Answer, Executions, Service, paid},
    toolbox::new_claim,
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
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let store = settings(&redis, RedisStore::builder(url)).connect().await;
        // The pause before an acquire is repeated is a fiftieth of it.
        let engine = Idempotency::builder().store_timeout(Duration::from_secs(60));
        let pings = redis.calls("ping");
        let service = Service::with(engine, store.expect("a store"), &Executions::default());
        // Its listener begins with one, and the lost reply must not be the reply to that.
        block_in_place(|| {
            until("the listener", || {
                (redis.calls("ping") > pings).then_some(())
            });
        });
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

    /// The server takes the first acquire, and its reply is lost. When it can be asked again, it is full.
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

        // A key that the server has no room for is not harmed by that.
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
        let port = primary.port().to_string();
        let settings = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
        let second = Redis::with(&settings).expect("a replica");
        block_in_place(|| online(&second));
        replica = Some(second);
        store.wait_replicas(1, Duration::from_secs(5))
    });
    let Some(limited) = limited.await else { return };
    limited.executes_once_and_replays().await;

    // Each outcome is where a failover would look for it.
    let records = replica.expect("it was started").ask(&["DBSIZE"]);
    assert_eq!(records, ":3\r\n");
}

fn online(replica: &Redis) {
    until("the replica", || {
        let info = replica.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
}

/// At its memory limit a server refuses each new claim. That must not cost a connection each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_claim_that_was_to_be_confirmed_keeps_its_connection() {
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

/// At its limit a server takes no new keys, and loses none that it has.
#[tokio::test]
async fn a_full_server_refuses_new_keys_and_completes_old_ones() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let store = on(&redis).connect().await.unwrap();
    let [mine, lapsing, other] = [1, 2, 3].map(|n| new_claim(key(n)));
    store.acquire(&mine).await.unwrap();
    store.acquire(&lapsing).await.unwrap();
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);

    let error = store.acquire(&other).await.expect_err("no room");
    assert_eq!(error.kind(), StoreErrorKind::Full, "{error:?}");
    assert_eq!(
        store.acquire(&mine).await.unwrap(),
        Acquisition::Acquired { attempt: 1 },
        "its own, whose reply may have been lost"
    );
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    let outcome = Outcome::Response(response(200, &[], &vec![7; 1 << 20]));
    assert_eq!(
        store.complete(&mine.held(), &outcome).await.unwrap(),
        Write::Applied
    );
    assert_eq!(
        store.abandon(&key(2), &lapsing.token).await.unwrap(),
        Write::Applied
    );
    let again = store.acquire(&new_claim(key(1))).await.unwrap();
    assert_eq!(again, Acquisition::Completed(outcome));
}
