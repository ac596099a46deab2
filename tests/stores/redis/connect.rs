//! What is looked at when a store is opened.

use std::{
    error::Error as _,
    net::TcpListener,
    time::{Duration, Instant},
};

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, Write,
    conformance::{Harness as _, claim, key, response},
    redis::{ConnectError, RedisStore, RedisStoreBuilder, Weakness},
};

use super::{OnRedis, installed};
use crate::{
    servers::{free_port, redis::Redis},
    toolbox::answered,
};

const DURABLE: [&str; 2] = ["--appendonly", "yes"];

async fn refused(builder: RedisStoreBuilder) -> ConnectError {
    builder.connect().await.expect_err("no store")
}

fn on(redis: &Redis) -> RedisStoreBuilder {
    RedisStore::builder(redis.url())
}

#[track_caller]
fn weaknesses(error: ConnectError) -> Vec<Weakness> {
    match error {
        ConnectError::Weak { weaknesses } => weaknesses,
        other => panic!("{other:?} is another error"),
    }
}

#[tokio::test]
async fn a_server_without_persistence_is_refused_unless_accepted() {
    let Some(redis) = Redis::with(&[]) else {
        return;
    };
    let error = refused(on(&redis)).await;
    assert_eq!(
        error.to_string(),
        "this Redis server can lose keys that it acknowledged: it has no append-only file (set `appendonly yes`); \
         or choose `accept_weaker_durability()`"
    );
    assert_eq!(weaknesses(error), [Weakness::NoAppendOnlyFile]);
    on(&redis)
        .accept_weaker_durability()
        .connect()
        .await
        .unwrap();
}

#[tokio::test]
async fn an_append_only_file_that_is_never_flushed_is_refused() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--appendfsync", "no"]) else {
        return;
    };
    assert_eq!(
        weaknesses(refused(on(&redis)).await),
        [Weakness::NeverFlushed]
    );
}

#[tokio::test]
async fn an_append_only_file_that_is_not_flushed_while_it_is_rewritten_is_refused() {
    let settings = ["--appendonly", "yes", "--no-appendfsync-on-rewrite", "yes"];
    let Some(redis) = Redis::with(&settings) else {
        return;
    };
    let error = refused(on(&redis)).await;
    assert!(
        error.to_string().contains("no-appendfsync-on-rewrite no"),
        "{error}"
    );
    assert_eq!(weaknesses(error), [Weakness::NotFlushedInRewrites]);
    redis.ask(&["CONFIG", "SET", "no-appendfsync-on-rewrite", "no"]);
    on(&redis).connect().await.unwrap();
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    for policy in ["allkeys-lru", "volatile-ttl", "volatile-random"] {
        let [append, yes] = DURABLE;
        let settings = [
            append,
            yes,
            "--maxmemory",
            "100mb",
            "--maxmemory-policy",
            policy,
        ];
        let Some(redis) = Redis::with(&settings) else {
            return;
        };
        let policy = policy.to_owned();
        assert_eq!(
            weaknesses(refused(on(&redis)).await),
            [Weakness::Evicts { policy }]
        );
        // The limit is what makes it evict.
        redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
        on(&redis).connect().await.unwrap();
        redis.ask(&["CONFIG", "SET", "maxmemory", "100mb"]);
        redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
        on(&redis).connect().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_without_showing_it() {
    let Some(redis) = Redis::with(&["--appendonly", "yes", "--requirepass", "opensesame"]) else {
        return;
    };
    let at = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", redis.port());
    for credentials in ["", ":wrongword@", "nobody:wrongword@"] {
        let error = refused(RedisStore::builder(at(credentials))).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{error:?}"
        );
        let all = format!("{error} {error:?} {:?}", error.source());
        assert!(!all.contains("wrongword"), "{all}");
    }
    let store = RedisStore::connect(at(":opensesame@")).await.unwrap();
    assert!(store.get(&key(1)).await.unwrap().is_none());
    assert!(
        !format!("{store:?} {:?}", RedisStore::builder(at(":opensesame@"))).contains("opensesame")
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_at_once() {
    let started = Instant::now();
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    let error = refused(RedisStore::builder(nobody)).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let (mut chain, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        chain = format!("{chain}: {cause}");
        next = cause.source();
    }
    assert_eq!(chain.matches("refused").count(), 1, "{chain}");
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    // Connections are accepted by the system; nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let error = refused(RedisStore::builder(url).connect_timeout(Duration::from_millis(300))).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_before_anything_is_asked() {
    for url in ["http://localhost", "redis://localhost/x", "localhost"] {
        let error = refused(RedisStore::builder(url)).await;
        assert!(matches!(error, ConnectError::Url { .. }), "{error:?}");
    }
    let error = refused(RedisStore::builder("redis://localhost").prefix("{a}")).await;
    assert!(matches!(error, ConnectError::Prefix { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_permit_to_look_is_refused_unless_accepted() {
    for (forbidden, command) in [("-info", "INFO"), ("-config", "CONFIG GET appendfsync")] {
        let Some(redis) = Redis::with(&DURABLE) else {
            return;
        };
        redis.ask(&[
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", forbidden,
        ]);
        let app = || RedisStore::builder(format!("redis://app:pw@127.0.0.1:{}", redis.port()));
        match refused(app()).await {
            ConnectError::Unverified { command: asked, .. } => assert_eq!(asked, command),
            other => panic!("{other:?} is another error"),
        }
        let store = app().accept_weaker_durability().connect().await.unwrap();
        let mine = claim::<OnRedis>(key(1));
        let acquired = store.acquire(&mine).await.unwrap();
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    }
}

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
    let Some(redis) = Redis::with(&DURABLE) else {
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
    let error = store.acquire(&claim::<OnRedis>(key(9))).await.unwrap_err();
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
    let mine = claim::<OnRedis>(key(1));
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
    let other = claim::<OnRedis>(key(2));
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

#[tokio::test]
async fn a_replica_and_a_node_of_a_cluster_are_refused() {
    let Some(primary) = Redis::with(&DURABLE) else {
        return;
    };
    let port = primary.port().to_string();
    let replica = Redis::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]).unwrap();
    assert!(matches!(refused(on(&replica)).await, ConnectError::Replica));
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
    let node = Redis::with(&[&DURABLE[..], &cluster].concat()).unwrap();
    assert!(matches!(
        refused(on(&node)).await,
        ConnectError::PartOfCluster
    ));
}

#[tokio::test]
async fn a_server_that_is_part_of_no_cluster_is_told_from_one_that_does_not_answer() {
    let Some(redis) = Redis::with(&DURABLE) else {
        return;
    };
    let started = Instant::now();
    let url = format!("redis+cluster://127.0.0.1:{}", redis.port());
    let error = refused(RedisStore::builder(url)).await;
    assert!(matches!(error, ConnectError::NotCluster), "{error:?}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "told at once: {took:?}");
}

/// At its limit a server takes no new keys, and loses none that it has.
#[tokio::test]
async fn a_full_server_refuses_new_keys_and_completes_old_ones() {
    let Some(redis) = Redis::with(&DURABLE) else {
        return;
    };
    let store = on(&redis).connect().await.unwrap();
    let [mine, lapsing, other] = [1, 2, 3].map(|n| claim::<OnRedis>(key(n)));
    store.acquire(&mine).await.unwrap();
    store.acquire(&lapsing).await.unwrap();
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);

    let error = store.acquire(&other).await.expect_err("no room");
    assert_eq!(error.kind(), StoreErrorKind::Full, "{:?}", error.source());
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
    let again = store.acquire(&claim::<OnRedis>(key(1))).await.unwrap();
    assert_eq!(again, Acquisition::Completed(outcome));
}

#[tokio::test]
async fn stores_with_different_prefixes_share_nothing() {
    if !installed() {
        return;
    }
    let (a, b) = (OnRedis::open().await, OnRedis::open().await);
    for store in [a.store(), b.store()] {
        let acquired = store.acquire(&claim::<OnRedis>(key(1))).await.unwrap();
        assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    }
}

/// Replicas that confirm are what a failover loses nothing to; too few are an error, and no lost claim.
#[tokio::test]
async fn writes_are_confirmed_by_replicas() {
    let Some(primary) = Redis::with(&DURABLE) else {
        return;
    };
    let port = primary.port().to_string();
    let confirmed = on(&primary).wait_replicas(1, Duration::from_millis(200));
    let store = confirmed.connect().await.unwrap();
    let mine = claim::<OnRedis>(key(1));

    let error = store.acquire(&mine).await.expect_err("there is no replica");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(
        error.source().unwrap().to_string(),
        "0 of 1 replicas confirmed the write in time"
    );

    let replica = Redis::with(&["--appendonly", "yes", "--replicaof", "127.0.0.1", &port]).unwrap();
    crate::servers::until("the replica", || {
        let info = replica.ask(&["INFO", "replication"]);
        info.contains("master_link_status:up").then_some(())
    });
    // The repetition is the same lease, confirmed this time.
    let acquired = answered(|| store.acquire(&mine)).await;
    assert_eq!(acquired, Acquisition::Acquired { attempt: 1 });
    let outcome = Outcome::Response(response(200, &[], b"done"));
    let held = mine.held();
    let completed = answered(|| store.complete(&held, &outcome)).await;
    assert_eq!(completed, Write::Applied);
    assert_eq!(
        replica.ask(&["EXISTS", &format!("idempotent:{}", "01".repeat(32))]),
        ":1\r\n"
    );
    let next = claim::<OnRedis>(key(1));
    let again = answered(|| store.acquire(&next)).await;
    assert_eq!(again, Acquisition::Completed(outcome));
}

#[tokio::test]
async fn confirmation_that_cannot_be_had_is_refused() {
    if !installed() {
        return;
    }
    for (replicas, timeout) in [(0, Duration::from_secs(1)), (1, Duration::ZERO)] {
        let builder = RedisStore::builder(OnRedis::server().url()).wait_replicas(replicas, timeout);
        assert!(matches!(refused(builder).await, ConnectError::Wait { .. }));
    }
}
