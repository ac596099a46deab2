//! A server that is there and refuses for a while. Nothing was done then, and no connection is at fault.

use std::thread;

use idempotent_runtime::store::{
    Acquisition, Claim, Outcome, Store, StoreError, StoreErrorKind, Write, conformance::key,
    redis::RedisStore,
};
use tokio::task::block_in_place;

use crate::{
    proxy::Proxy,
    servers::{
        redis::{Redis, ask_inline},
        until,
    },
    toolbox::{chain, new_claim},
};

const FIRST: Acquisition = Acquisition::Acquired { attempt: 1 };

/// A store, and a record in each state.
struct Records {
    redis: Redis,
    proxy: Proxy,
    store: RedisStore,
    /// In flight.
    mine: Claim,
    completed: Claim,
    new: Claim,
}

impl Records {
    async fn on(redis: Redis) -> Self {
        let proxy = Proxy::to(redis.port());
        let url = format!("redis://127.0.0.1:{}", proxy.port());
        let store = RedisStore::connect(url).await.expect("a store");
        let [mine, completed, new] = [1, 2, 3].map(|n| new_claim(key(n)));
        for claim in [&mine, &completed] {
            assert_eq!(store.acquire(claim).await.unwrap(), FIRST);
        }
        let done = store.complete(&completed.held(), &Outcome::Tombstone).await;
        assert_eq!(done.unwrap(), Write::Applied);
        Self {
            redis,
            proxy,
            store,
            mine,
            completed,
            new,
        }
    }

    /// Each verb that writes, twice, so that a connection that was given up would be seen.
    async fn all_writes_are_refused(&self, says: &str) {
        let (store, held) = (&self.store, self.mine.held());
        let token = &self.mine.token;
        for _ in 0..2 {
            for error in [
                store.acquire(&self.new).await.map(drop),
                store.acquire(&self.mine).await.map(drop),
                store.renew(&held).await.map(drop),
                store.complete(&held, &Outcome::Tombstone).await.map(drop),
                store.release(&held.key, token).await.map(drop),
                store.abandon(&held.key, token).await.map(drop),
            ] {
                is_refused(&error.expect_err("refused"), says);
            }
        }
    }

    /// After the refusals: nothing of what was refused was done, all of it succeeds, over the same connections.
    async fn go_on(&self, connections: u64) {
        let store = &self.store;
        assert!(store.get(&self.new.key).await.unwrap().is_none());
        assert_eq!(store.acquire(&self.new).await.unwrap(), FIRST);
        let other = new_claim(self.mine.key);
        let answer = store.acquire(&other).await.unwrap();
        assert!(matches!(answer, Acquisition::InFlight { .. }), "{answer:?}");
        let done = store.complete(&self.mine.held(), &Outcome::Tombstone).await;
        assert_eq!(done.unwrap(), Write::Applied);
        for known in [&self.mine, &self.completed] {
            let replay = store.acquire(&new_claim(known.key)).await.unwrap();
            assert_eq!(replay, Acquisition::Completed(Outcome::Tombstone));
        }
        assert_eq!(self.proxy.accepted(), connections, "connections");
    }
}

fn is_refused(error: &StoreError, says: &str) {
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert!(chain(error).contains(says), "{}", chain(error));
}

/// Somebody else's script does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_with_a_script_refuses_and_is_found_well_afterwards() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--lua-time-limit", "20"]) else {
        return;
    };
    let records = Records::on(redis).await;
    let before = records.proxy.accepted();
    let redis = &records.redis;
    let port = redis.port();
    let endless = "EVAL \"while true do end\" 0";
    let script = thread::spawn(move || ask_inline(port, endless));
    let reply = |command: &[&str], is: fn(&str) -> bool| {
        block_in_place(|| until("the reply", || is(&redis.ask(command)).then_some(())));
    };
    reply(&["PING"], |reply| reply.starts_with("-BUSY"));
    records.all_writes_are_refused("BUSY").await;
    let error = records.store.get(&records.completed.key).await;
    is_refused(&error.expect_err("refused"), "BUSY");
    reply(&["SCRIPT", "KILL"], |reply| reply.starts_with("+OK"));
    let said = script.join().expect("the script's end");
    assert!(said.contains("killed by user"), "{said}");
    records.go_on(before).await;
}

/// `min-replicas-to-write`, and too few replicas. What was stored is read all the same.
#[tokio::test]
async fn a_server_that_misses_its_replicas_refuses_writes_and_replays() {
    let Some(redis) = Redis::start() else { return };
    let records = Records::on(redis).await;
    let before = records.proxy.accepted();
    let demand = |replicas| {
        let set = ["CONFIG", "SET", "min-replicas-to-write", replicas];
        assert_eq!(records.redis.ask(&set), "+OK\r\n");
    };
    demand("1");
    records.all_writes_are_refused("NOREPLICAS").await;
    let replay = new_claim(records.completed.key);
    let replay = records.store.acquire(&replay).await.unwrap();
    assert_eq!(replay, Acquisition::Completed(Outcome::Tombstone));
    assert!(
        records
            .store
            .get(&records.mine.key)
            .await
            .unwrap()
            .is_some()
    );
    demand("0");
    records.go_on(before).await;
}
