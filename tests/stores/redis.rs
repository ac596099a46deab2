//! The conformance suite on Redis, and what only that store promises. Each test has a key prefix or a server of its own.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use idempotent_runtime::{
    StoreKey,
    store::{
        AnyStore,
        conformance::Harness,
        redis::{ConnectError, RedisStore, RedisStoreBuilder},
    },
};

use crate::{
    proxy::{Proxy, Treatment},
    servers::redis::Redis,
};

mod cluster;
mod cluster_failover;
mod connect;
mod earlier;
mod faults;
mod listing;
mod memory_limit;
mod permissions;
mod records;
mod replicas;
mod sentinel;
mod temporary_errors;
mod wakeup;

/// Moves the end of each lease and the expiry of each record with a prefix back by the same amount. The clock itself belongs
/// to a server that other tests share.
const SHIFT: &str = r"
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
        if redis.call('TYPE', key).ok == 'hash' then
            local lease = redis.call('HGET', key, 'l')
            if lease then redis.call('HSET', key, 'l', lease - ARGV[2]) end
            for _, field in ipairs({'c', 'd'}) do
                local time = redis.call('HGET', key, field)
                if time then redis.call('HSET', key, field, time - ARGV[2]) end
            end
            local left = redis.call('PTTL', key) - ARGV[2]
            if left > 0 then redis.call('PEXPIRE', key, left) else redis.call('DEL', key) end
        end
    end
    return 'OK'";

/// Moves the times of all records with this prefix back on this server or node.
fn shift(redis: &Redis, prefix: &str, by: Duration) {
    let reply = redis.ask(&["EVAL", SHIFT, "0", prefix, &by.as_millis().to_string()]);
    assert_eq!(reply, "OK");
}

/// A store on the server that all tests share, with a prefix of its own.
pub(crate) struct RedisHarness {
    store: RedisStore,
    prefix: String,
}

impl RedisHarness {
    fn server() -> &'static Redis {
        Redis::shared().expect("checked before the test began")
    }

    async fn connect(prefix: &str) -> RedisStore {
        let builder = on(Self::server()).prefix(prefix);
        builder.connect().await.expect("a store")
    }

    /// The name of a record's key.
    fn record(&self, key: &StoreKey) -> String {
        format!("{}{}", self.prefix, hex(key))
    }
}

impl Harness for RedisHarness {
    type Store = RedisStore;
    const ADMINISTRABLE: bool = true;
    const STEPS: bool = true;
    const INSPECTABLE: bool = true;

    async fn open() -> Self {
        let prefix = new_prefix();
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
        shift(Self::server(), &self.prefix, by);
    }

    async fn losing_handle(&self, key: &StoreKey) -> Option<RedisStore> {
        let proxy = Proxy::to(Self::server().port());
        let store = at(proxy.port()).prefix(&self.prefix).connect().await;
        proxy.treat(*key.as_bytes(), 0, Treatment::LoseReply);
        Some(store.expect("a store"))
    }

    async fn corrupt(&self, key: &StoreKey, stored: &[u8]) -> bool {
        let record = self.record(key);
        Self::server().ask_bytes(&[b"HSET", record.as_bytes(), b"r", stored]);
        true
    }
}

/// A prefix that no other test uses.
fn new_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}:", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn hex(key: &StoreKey) -> String {
    use std::fmt::Write as _;
    key.as_bytes().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes it");
        hex
    })
}

/// The builder of a store on this server.
fn on(redis: &Redis) -> RedisStoreBuilder {
    at(redis.port())
}

/// The builder of a store that reaches its server by this port.
fn at(port: u16) -> RedisStoreBuilder {
    RedisStore::builder(format!("redis://127.0.0.1:{port}"))
}

/// Opens a store. Its type is erased, so that what a test does with it is compiled once for all stores.
async fn open(builder: RedisStoreBuilder) -> AnyStore {
    AnyStore::new(builder.connect().await.expect("a store"))
}

async fn refused(builder: RedisStoreBuilder) -> ConnectError {
    builder.connect().await.expect_err("no store")
}

/// Whether Redis is installed; if not, that was printed.
pub(crate) fn installed() -> bool {
    Redis::shared().is_some()
}

mod conformance {
    idempotent_runtime::store_conformance!(super::RedisHarness, if super::installed());
}

#[test]
fn the_redis_store_follows_the_model() {
    if installed() {
        crate::model::play::<RedisHarness>(100).unwrap();
    }
}
