//! Notifications between engines that share nothing but the server.

use std::time::Instant;

use futures_util::future::join_all;
use idempotent_runtime::store::redis::RedisStore;
use tokio::task::block_in_place;

use super::open;
use crate::{
    proxy::Proxy,
    servers::{redis::Redis, until},
    service::{Executions, Gate, Service, latencies, new_key},
    toolbox::{eventually, within},
    waiting::{NOTIFIED, POLLED},
};

/// Services whose stores have connections of their own.
pub(super) async fn services(urls: [&str; 2]) -> [Service; 2] {
    let executions = Executions::default();
    let service = async |url| Service::new(open(RedisStore::builder(url)).await, &executions);
    [service(urls[0]).await, service(urls[1]).await]
}

/// The channels that somebody is subscribed to.
fn channels(redis: &Redis) -> Vec<String> {
    let reply = redis.ask_bytes(&[
        b"EVAL",
        b"return table.concat(redis.call('PUBSUB', 'SHARDCHANNELS'), ' ')",
        b"0",
    ]);
    let names = String::from_utf8(reply).expect("names");
    names.split_whitespace().map(str::to_owned).collect()
}

/// Waits until so many channels have a subscriber.
fn subscribed(redis: &Redis, count: usize) {
    block_in_place(|| {
        until("the subscriptions", || {
            (channels(redis).len() == count).then_some(())
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

/// Nothing is subscribed to before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_subscribed_only_while_somebody_waits() {
    let Some(redis) = Redis::start() else { return };
    let [first, second] = services([&redis.url(); 2]).await;
    let (keys, gate) = (["a", "b"], Gate::closed());
    subscribed(&redis, 0);
    let executing = join_all(keys.map(|key| first.pay_behind(key, &gate)));
    let waiting = async {
        first.executions().started(2).await;
        // Two for one key.
        let all = [keys[0], keys[0], keys[1]].map(|key| second.pay(key));
        let ending = async {
            let waited_for = || format!("{:?}", channels(&redis));
            eventually(async || channels(&redis).len() == 2, waited_for).await;
            let begins = |name: &String| name.starts_with("idempotent:done:{idempotent:");
            assert!(
                channels(&redis).iter().all(begins),
                "{:?}",
                channels(&redis)
            );
            gate.open();
        };
        tokio::join!(join_all(all), ending).0
    };
    let (_, answers) = tokio::join!(executing, waiting);
    assert!(answers.iter().all(|answer| answer.replayed), "{answers:?}");
    subscribed(&redis, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_that_is_off_publishes_and_subscribes_to_nothing() {
    let Some(redis) = Redis::start() else { return };
    let executions = Executions::default();
    let off = async || {
        let store = open(RedisStore::builder(redis.url()).push(false)).await;
        Service::new(store, &executions)
    };
    let [first, second] = [off().await, off().await];
    within(POLLED, async || latencies(&first, &second, 1).await).await;
    assert_eq!(redis.calls("spublish") + redis.calls("ssubscribe"), 0);
    let [on, also_on] = services([&redis.url(); 2]).await;
    latencies(&on, &also_on, 1).await;
    assert!(redis.calls("spublish") > 0 && redis.calls("ssubscribe") > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_may_not_subscribe_polls() {
    let Some(redis) = Redis::start() else { return };
    let rights = ["on", ">pw", "~*", "+@all", "-subscribe", "-ssubscribe"];
    redis.ask(&[&["ACL", "SETUSER", "polling"], &rights[..]].concat());
    let polling = format!("redis://polling:pw@127.0.0.1:{}", redis.port());
    let [first, second] = services([&redis.url(), &polling]).await;
    within(POLLED, async || latencies(&first, &second, 1).await).await;
}

/// The connection breaks while somebody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_listener_was_cut_off_is_woken() {
    let Some(redis) = Redis::start() else { return };
    let [first, second] = services([&redis.url(); 2]).await;
    within(NOTIFIED, async || {
        let (key, gate) = (new_key(), Gate::closed());
        let number = first.executions().count() + 1;
        let executing = async {
            first.pay_behind(&key, &gate).await;
            Instant::now()
        };
        let waiting = async {
            first.executions().started(number).await;
            let ending = || {
                subscribed(&redis, 1);
                assert_eq!(redis.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]), ":1\r\n");
                subscribed(&redis, 1);
                gate.open();
            };
            second.wait(&key, ending).await.1
        };
        let (completed, answered) = tokio::join!(executing, waiting);
        vec![answered.saturating_duration_since(completed)]
    })
    .await;
}

/// The connections of both processes break while nobody waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_were_cut_off_subscribe_again() {
    let Some(mut redis) = Redis::start() else {
        return;
    };
    let proxy = Proxy::to(redis.port());
    let by_proxy = format!("redis://127.0.0.1:{}", proxy.port());
    let [first, second] = services([&redis.url(), &by_proxy]).await;
    latencies(&first, &second, 1).await;
    proxy.cut();
    block_in_place(|| redis.restart());
    within(NOTIFIED, async || latencies(&first, &second, 1).await).await;
}
