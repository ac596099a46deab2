//! The permissions of the documentation are enough, and needed.

use std::time::Duration;

use idempotent_runtime::store::{
    Outcome, Store, StoreErrorKind, Write,
    conformance::key,
    redis::{ConnectError, RedisStore},
};

use super::refused;
use crate::{servers::redis::Redis, toolbox::new_claim};

const DOCUMENTED: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../idempotent-runtime/src/store/redis/mod.rs"
));

/// The command of the documentation that makes a user `app`, with the password `pw`.
pub(super) fn documented_rule() -> Vec<&'static str> {
    let (_, rule) = DOCUMENTED
        .split_once("//! ACL SETUSER app on >password")
        .expect("a rule");
    let (rule, _) = rule.split_once("//! ```").expect("its end");
    let words = rule.split_whitespace().filter(|word| *word != "//!");
    let user = ["ACL", "SETUSER", "app", "on", ">pw"];
    user.into_iter().chain(words).collect()
}

/// What the table of the documentation says is needed besides for this.
pub(super) fn documented_besides(purpose: &str) -> Vec<String> {
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

/// The documented permissions are enough, and one without the right to publish still completes.
#[tokio::test]
async fn the_documented_permissions_are_enough() {
    let Some(redis) = Redis::start() else {
        return;
    };
    let port = redis.port().to_string();
    let replica = Redis::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]).unwrap();
    crate::servers::until("the replica", || {
        let info = replica.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    let rule = documented_rule();
    assert!(
        rule.contains(&"+evalsha") && rule.contains(&"&idempotent:done"),
        "{rule:?}"
    );
    assert_eq!(redis.ask(&rule), "+OK\r\n");
    let url = format!("redis://app:pw@127.0.0.1:{port}");

    // What the documentation says is needed besides is needed.
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
    let store = confirmed().connect().await.unwrap();
    let error = store.acquire(&new_claim(key(9))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    redis.ask(&["ACL", "SETUSER", "app", "+wait"]);
    // Unknown before 7.2, and then not asked for.
    redis.ask(&["ACL", "SETUSER", "app", "+waitaof"]);
    works(&confirmed().connect().await.unwrap()).await;
    works(&RedisStore::connect(&*url).await.unwrap()).await;
    let denied = redis.ask_all(&["ACL", "LOG"]);
    for command in denied.split("object").skip(1) {
        assert!(
            command.contains("wait") || command.contains("select"),
            "{denied}"
        );
    }
}

/// Every verb, and what listens.
pub(super) async fn works(store: &RedisStore) {
    let listening = idempotent_runtime::Idempotency::builder().store(store.clone());
    let _listening = listening.build().unwrap();
    let mine = new_claim(key(1));
    store.acquire(&mine).await.unwrap();
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    assert_eq!(
        store
            .complete(&mine.held(), &Outcome::Tombstone)
            .await
            .unwrap(),
        Write::Applied
    );
    assert!(store.get(&key(1)).await.unwrap().is_some());
    let other = new_claim(key(2));
    store.acquire(&other).await.unwrap();
    assert_eq!(
        store.abandon(&key(2), &other.token).await.unwrap(),
        Write::Applied
    );
    assert_eq!(
        store.release(&key(2), &other.token).await.unwrap(),
        Write::Applied
    );
}
