//! A server at its memory limit, met by an engine: claims whose reply was lost go on, and replays are answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Extension, Router, body::Body, routing::post};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use idempotent_runtime::{
    Idempotency, idempotent,
    store::redis::{RedisStore, RedisStoreBuilder},
};
use tokio::task::block_in_place;
use tower::ServiceExt as _;

use crate::{
    proxy::Proxy,
    servers::{redis::Redis, until},
};

#[derive(Clone, Default)]
struct Till(Arc<AtomicU32>);

#[idempotent]
async fn pay(Extension(Till(executed)): Extension<Till>) -> (StatusCode, String) {
    let n = executed.fetch_add(1, Ordering::SeqCst) + 1;
    (StatusCode::CREATED, format!("charge {n}"))
}

struct Shop {
    redis: Redis,
    proxy: Proxy,
    till: Till,
    app: Router,
}

impl Shop {
    /// A service whose store reaches its server through a proxy.
    async fn open(
        settings: impl FnOnce(&Redis, RedisStoreBuilder) -> RedisStoreBuilder,
    ) -> Option<Self> {
        let redis = Redis::start()?;
        let proxy = Proxy::to(redis.port());
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let store = settings(&redis, RedisStore::builder(url)).connect().await;
        // The pause before an acquire is repeated is a fiftieth of it.
        let engine = Idempotency::builder().store_timeout(Duration::from_secs(60));
        let pings = redis.calls("ping");
        let engine = engine.store(store.expect("a store")).build().unwrap();
        let till = Till::default();
        let app = Router::new()
            .route("/pay", post(pay))
            .layer(Extension(till.clone()))
            .layer(Extension(engine));
        // Its listener begins with one, and no reply to that is to be the lost one.
        block_in_place(|| {
            until("the listener", || {
                (redis.calls("ping") > pings).then_some(())
            });
        });
        Some(Self {
            redis,
            proxy,
            till,
            app,
        })
    }

    /// The status, whether it was a replay, and the body.
    async fn pay(&self, key: &str) -> (u16, bool, String) {
        let request = Request::post("/pay").header("idempotency-key", key);
        let request = request.body(Body::empty()).unwrap();
        let response = self.app.clone().oneshot(request).await.unwrap();
        let replayed = response.headers().contains_key("idempotent-replay");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            replayed,
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    fn limit(&self, bytes: &str) {
        let reply = self.redis.ask(&["CONFIG", "SET", "maxmemory", bytes]);
        assert_eq!(reply, "+OK\r\n");
    }

    /// The server takes the first acquire, and its reply is lost. When it can be asked again, it is full.
    async fn pay_while_it_fills(&self, key: &str) -> (u16, bool, String) {
        let filled = async {
            block_in_place(|| {
                until("the lost reply", || (self.proxy.lost() == 1).then_some(()));
                self.limit("1");
                self.proxy.refuse(false);
            });
        };
        self.proxy.lose_next_reply();
        self.proxy.refuse(true);
        tokio::join!(self.pay(key), filled).0
    }

    async fn executes_once_and_replays(&self) {
        let (status, replayed, body) = self.pay("before").await;
        assert_eq!((status, replayed, &*body), (201, false, "charge 1"));

        let (status, replayed, body) = self.pay_while_it_fills("during").await;
        assert_eq!((status, replayed, &*body), (201, false, "charge 2"));
        for (key, charge) in [("during", "charge 2"), ("before", "charge 1")] {
            let (status, replayed, body) = self.pay(key).await;
            assert_eq!((status, replayed, &*body), (201, true, charge), "{key}");
        }

        // A key that the server has no room for is not harmed by that.
        for _ in 0..2 {
            let (status, _, body) = self.pay("after").await;
            assert_eq!(status, 503, "{body}");
        }
        assert_eq!(self.till.0.load(Ordering::SeqCst), 2);
        self.limit("0");
        let (status, replayed, body) = self.pay("after").await;
        assert_eq!((status, replayed, &*body), (201, false, "charge 3"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_reply_was_lost_before_the_server_was_full_is_executed_once() {
    if let Some(shop) = Shop::open(|_, store| store).await {
        shop.executes_once_and_replays().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_confirmed_claim_whose_reply_was_lost_before_the_server_was_full_is_executed_once() {
    let mut replica = None;
    let shop = Shop::open(|primary, store| {
        let port = primary.port().to_string();
        let settings = ["--appendonly", "yes", "--replicaof", "127.0.0.1", &port];
        let second = Redis::with(&settings).expect("a replica");
        block_in_place(|| online(&second));
        replica = Some(second);
        store.wait_replicas(1, Duration::from_secs(5))
    });
    let Some(shop) = shop.await else { return };
    shop.executes_once_and_replays().await;

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
    let Some(shop) = Shop::open(|_, store| store.wait_replicas(1, Duration::from_millis(1))).await
    else {
        return;
    };
    shop.limit("1");
    let before = shop.proxy.accepted();
    for n in 0..5 {
        let (status, _, body) = shop.pay(&format!("key-{n}")).await;
        assert_eq!(status, 503, "{body}");
    }
    let made = shop.proxy.accepted() - before;
    assert!(made <= 2, "{made} connections for five refusals");
}
