//! Notifications between engines that share nothing but the server.

use idempotent_runtime::store::redis::RedisStore;
use tokio::task::block_in_place;

use super::open;
use crate::{
    proxy::Proxy,
    servers::{redis::Redis, until},
    service::{Executions, Service, latencies},
    toolbox::within,
    waiting::{NOTIFIED, POLLED},
};

/// Services whose stores have connections of their own.
pub(super) async fn services(urls: [&str; 2]) -> [Service; 2] {
    let executions = Executions::default();
    let service = async |url| Service::new(open(RedisStore::builder(url)).await, &executions);
    [service(urls[0]).await, service(urls[1]).await]
}

/// Waits until so many engines are subscribed.
fn listening(redis: &Redis, engines: u8) {
    let expected = format!(":{engines}\r\n");
    let subscribed = || redis.ask(&["PUBSUB", "NUMSUB", "idempotent:done"]);
    block_in_place(|| {
        until("the listeners", || {
            subscribed().contains(&expected).then_some(())
        });
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_is_woken() {
    let Some(redis) = Redis::start() else { return };
    within(NOTIFIED, async || {
        let [first, second] = services([&redis.url(); 2]).await;
        latencies(&first, &second, 5).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_may_not_subscribe_polls() {
    let Some(redis) = Redis::start() else { return };
    let rights = ["on", ">pw", "~*", "+@all", "-subscribe"];
    redis.ask(&[&["ACL", "SETUSER", "polling"], &rights[..]].concat());
    let polling = format!("redis://polling:pw@127.0.0.1:{}", redis.port());
    let [first, second] = services([&redis.url(), &polling]).await;
    listening(&redis, 1);
    within(POLLED, async || latencies(&first, &second, 1).await).await;
}

/// The connections of both listeners break.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_that_were_cut_off_subscribe_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let proxy = Proxy::to(redis.port());
    let by_proxy = format!("redis://127.0.0.1:{}", proxy.port());
    let [first, second] = services([&redis.url(), &by_proxy]).await;
    latencies(&first, &second, 1).await;
    proxy.cut();
    block_in_place(|| redis.restart());
    listening(&redis, 2);
    within(NOTIFIED, async || latencies(&first, &second, 1).await).await;
}
