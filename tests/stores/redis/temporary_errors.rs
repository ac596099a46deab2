//! A server that is reachable and refuses commands for a while. Nothing was written then, and its connections are sound.

use std::thread;

use idempotent_runtime::store::{
    AnyStore, Claim, Outcome, Store, StoreError, StoreErrorKind, Write, conformance::key,
};
use tokio::task::block_in_place;

use super::{at, open};
use crate::{
    proxy::Proxy,
    servers::{
        redis::{Redis, ask},
        until,
    },
    toolbox::{FIRST, assert_in_flight, chain, execute, new_claim, replays},
};

/// A store with a record in each state.
struct Records {
    redis: Redis,
    proxy: Proxy,
    store: AnyStore,
    in_flight: Claim,
    completed: Claim,
    new: Claim,
}

impl Records {
    async fn on(redis: Redis) -> Self {
        let proxy = Proxy::to(redis.port());
        let store = open(at(proxy.port())).await;
        let [in_flight, completed, new] = [1, 2, 3].map(|n| new_claim(key(n)));
        assert_eq!(store.acquire(&in_flight).await.unwrap(), FIRST);
        execute(&store, &completed, &Outcome::Tombstone).await;
        Self {
            redis,
            proxy,
            store,
            in_flight,
            completed,
            new,
        }
    }

    /// Each operation that writes is refused, twice: a connection that was closed after the first time would be counted.
    async fn all_writes_are_refused(&self, reason: &str) {
        let (store, held) = (&self.store, self.in_flight.held());
        let token = &self.in_flight.token;
        for _ in 0..2 {
            for error in [
                store.acquire(&self.new).await.map(drop),
                store.acquire(&self.in_flight).await.map(drop),
                store.renew(&held).await.map(drop),
                store.complete(&held, &Outcome::Tombstone).await.map(drop),
                store.release(&held.key, token).await.map(drop),
                store.abandon(&held.key, token).await.map(drop),
            ] {
                is_refused(&error.expect_err("refused"), reason);
            }
        }
    }

    /// What was refused was not carried out, and all of it succeeds now, over the same connections.
    async fn go_on(&self, connections: u64) {
        let store = &self.store;
        assert!(store.get(&self.new.key).await.unwrap().is_none());
        assert_eq!(store.acquire(&self.new).await.unwrap(), FIRST);
        let other = store.acquire(&new_claim(self.in_flight.key)).await;
        assert_in_flight(&other.unwrap());
        let held = self.in_flight.held();
        let completed = store.complete(&held, &Outcome::Tombstone).await;
        assert_eq!(completed.unwrap(), Write::Applied);
        for known in [&self.in_flight, &self.completed] {
            replays(store, known.key, &Outcome::Tombstone).await;
        }
        assert_eq!(self.proxy.accepted(), connections, "connections");
    }
}

fn is_refused(error: &StoreError, reason: &str) {
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(chain(error).contains(reason), "{}", chain(error));
}

/// The script of another client does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_with_a_script_refuses_until_it_is_killed() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--lua-time-limit", "20"]) else {
        return;
    };
    let records = Records::on(redis).await;
    let before = records.proxy.accepted();
    let redis = &records.redis;
    let port = redis.port();
    let script = thread::spawn(move || ask(port, &["EVAL", "while true do end", "0"]));
    let wait_for = |command: &[&str], expected: &str| {
        let answers = || redis.ask(command).starts_with(expected);
        block_in_place(|| until("the reply", || answers().then_some(())));
    };
    wait_for(&["PING"], "-BUSY");
    records.all_writes_are_refused("BUSY").await;
    let error = records.store.get(&records.completed.key).await;
    is_refused(&error.expect_err("refused"), "BUSY");
    wait_for(&["SCRIPT", "KILL"], "+OK");
    let reply = script.join().expect("the script's end");
    assert!(reply.contains("killed by user"), "{reply}");
    records.go_on(before).await;
}

/// With `min-replicas-to-write` and too few replicas, a server still answers reads.
#[tokio::test]
async fn a_server_without_its_replicas_refuses_writes_and_replays() {
    let Some(redis) = Redis::start() else { return };
    let records = Records::on(redis).await;
    let before = records.proxy.accepted();
    let demand = |replicas| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", replicas];
        assert_eq!(records.redis.ask(&set), "+OK\r\n");
    };
    demand("1");
    records.all_writes_are_refused("NOREPLICAS").await;
    replays(&records.store, records.completed.key, &Outcome::Tombstone).await;
    let shown = records.store.get(&records.in_flight.key).await;
    assert!(shown.unwrap().is_some());
    demand("0");
    records.go_on(before).await;
}
