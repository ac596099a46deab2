//! The conformance suite on Redis, and what only that store promises. Each test has a prefix or a server of
//! its own.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use idempotent_runtime::{
    StoreKey,
    store::{
        conformance::Harness,
        redis::{ConnectError, RedisStore, RedisStoreBuilder},
    },
};

use crate::servers::redis::Redis;

mod cluster;
mod cluster_failover;
mod connect;
mod faults;
mod memory_limit;
mod permissions;
mod records;
mod replicas;
mod sentinel;
mod temporary_errors;
mod wakeup;

/// The server's clock is everybody's, so what is stored moves back instead: the end of each lease and of each
/// key with a prefix, by the same amount.
const SHIFT: &str = r"
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
        local lease = redis.call('HGET', key, 'l')
        if lease then redis.call('HSET', key, 'l', lease - ARGV[2]) end
        local left = redis.call('PTTL', key) - ARGV[2]
        if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
    end
    return 'OK'";

pub(crate) struct RedisHarness {
    store: RedisStore,
    prefix: String,
}

impl RedisHarness {
    fn server() -> &'static Redis {
        Redis::shared().expect("looked for before the test began")
    }

    async fn connect(prefix: &str) -> RedisStore {
        let store = RedisStore::builder(Self::server().url()).prefix(prefix);
        store.connect().await.expect("a store")
    }

    /// The name of a record's key.
    pub(crate) fn record(&self, key: &StoreKey) -> String {
        format!("{}{}", self.prefix, hex(key))
    }
}

impl Harness for RedisHarness {
    type Store = RedisStore;

    async fn open() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("t{}:", NEXT.fetch_add(1, Ordering::Relaxed));
        let store = Self::connect(&prefix).await;
        Self { store, prefix }
    }

    fn store(&self) -> &RedisStore {
        &self.store
    }

    async fn second_handle(&self) -> RedisStore {
        Self::connect(&self.prefix).await
    }

    async fn advance(&self, by: Duration) {
        let reply = Self::server().ask(&[
            "EVAL",
            SHIFT,
            "0",
            &self.prefix,
            &by.as_millis().to_string(),
        ]);
        assert_eq!(reply, "OK");
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        let record = self.record(key);
        Self::server().ask_bytes(&[b"HSET", record.as_bytes(), b"r", stored]);
        true
    }
}

fn hex(key: &StoreKey) -> String {
    use std::fmt::Write as _;
    key.as_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes it");
        hex
    })
}

fn on(redis: &Redis) -> RedisStoreBuilder {
    RedisStore::builder(redis.url())
}

async fn refused(builder: RedisStoreBuilder) -> ConnectError {
    builder.connect().await.expect_err("no store")
}

/// Whether Redis can be tested here; if not, that was said.
pub(crate) fn installed() -> bool {
    Redis::shared().is_some()
}

mod conformance {
    idempotent_runtime::store_conformance!(super::RedisHarness, if super::installed());
}

#[test]
fn redis_follows_the_model() {
    if installed() {
        crate::model::play::<RedisHarness>(100).unwrap();
    }
}
