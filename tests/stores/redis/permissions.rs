//! The documented permissions are enough, and all of them are needed.

use std::time::Duration;

use idempotent_runtime::{
    Idempotency,
    store::{
        AnyStore, Outcome, Store, StoreErrorKind, Write,
        conformance::key,
        redis::{ConnectError, RedisStore},
    },
};

use super::{open, refused};
use crate::{servers::redis::Redis, toolbox::new_claim};

const DOCUMENTED: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../idempotent-runtime/src/store/redis/mod.rs"
));

/// The documented command that makes a user `app`, with the password `pw`.
pub(super) fn documented_rule() -> Vec<&'static str> {
    let (_, rule) = DOCUMENTED
        .split_once("//! ACL SETUSER app on >password")
        .expect("a rule");
    let (rule, _) = rule.split_once("//! ```").expect("its end");
    let words = rule.split_whitespace().filter(|word| *word != "//!");
    let user = ["ACL", "SETUSER", "app", "on", ">pw"];
    user.into_iter().chain(words).collect()
}

/// The permissions that the documentation's table adds for this purpose.
pub(super) fn documented_additions(purpose: &str) -> Vec<String> {
    let row = DOCUMENTED
        .lines()
        .find_map(|line| {
            let cells = line.strip_prefix("//! | `+")?;
            let (rights, what) = cells.split_once("` | ")?;
            (what == format!("{purpose} |")).then_some(rights)
        })
        .expect("a row of the table");
    let rights = format!("+{}", row.replace('\\', ""));
    rights.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let _replica = redis.replica().unwrap();
    let rule = documented_rule();
    assert!(
        rule.contains(&"+evalsha") && rule.contains(&"&idempotent:done:*"),
        "{rule:?}"
    );
    assert_eq!(redis.ask(&rule), "+OK\r\n");
    let url = format!("redis://app:pw@127.0.0.1:{}", redis.port());

    // The additions are needed.
    let error = refused(RedisStore::builder(format!("{url}/1"))).await;
    assert!(
        matches!(
            error,
            ConnectError::NotPermitted { .. } | ConnectError::Unreachable { .. }
        ),
        "{error:?}"
    );
    let confirmed = || {
        let builder = RedisStore::builder(format!("{url}/1"));
        builder.wait_replicas(1, Duration::from_secs(5))
    };
    redis.ask(&["ACL", "SETUSER", "app", "+select"]);
    let store = open(confirmed()).await;
    let error = store.acquire(&new_claim(key(9))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    redis.ask(&["ACL", "SETUSER", "app", "+wait"]);
    // A server before 7.2 does not know it, and the store does not send it there.
    redis.ask(&["ACL", "SETUSER", "app", "+waitaof"]);
    every_operation_works(&open(confirmed()).await).await;
    every_operation_works(&open(RedisStore::builder(&*url)).await).await;
    let denied = redis.ask(&["ACL", "LOG"]);
    for command in denied.split("object").skip(1) {
        assert!(
            command.contains("wait") || command.contains("select"),
            "{denied}"
        );
    }
}

/// Every operation is permitted, and so is the listener.
pub(super) async fn every_operation_works(store: &AnyStore) {
    let _listening = Idempotency::builder().store(store.clone()).build().unwrap();
    let [mine, other] = [1, 2].map(|n| new_claim(key(n)));
    store.acquire(&mine).await.unwrap();
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    let completed = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    assert!(store.get(&key(1)).await.unwrap().is_some());
    store.acquire(&other).await.unwrap();
    let abandoned = store.abandon(&key(2), &other.token).await;
    assert_eq!(abandoned.unwrap(), Write::Applied);
    let released = store.release(&key(2), &other.token).await;
    assert_eq!(released.unwrap(), Write::Applied);
}
