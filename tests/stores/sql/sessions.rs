//! Sessions that a server ends, changes or refuses, and what it says then. None of it loses a record.

use idempotent_runtime::store::{
    AnyStore, Claim, Outcome, Store, StoreError, StoreErrorKind, Write,
    conformance::key,
    sql::{mysql::MySqlStore, postgres::PostgresStore},
};
use sqlx::{Executor as _, postgres::PgPoolOptions};

use crate::{
    proxy::Proxy,
    servers::{mariadb::MariaDb, postgres::Postgres},
    sql::server::ServerKind,
    toolbox::{FIRST, chain, eventually, new_claim},
};

/// Three connections, all in use at once.
async fn use_all(store: &AnyStore) {
    let keys = [key(1), key(2), key(3)];
    let gets = keys.iter().map(|key| store.get(key));
    for got in futures_util::future::join_all(gets).await {
        got.unwrap();
    }
}

/// Waits until this query counts nothing.
async fn until_none(kind: ServerKind, url: &str, query: &str) {
    let none = async || kind.count(url, query).await == 0;
    eventually(none, || "some are left".to_owned()).await;
}

/// The server's last words on a connection, and what becomes of the verb that they answer: an error, or nothing but another
/// connection.
async fn say_last(
    proxy: &Proxy,
    store: &AnyStore,
    owner: &Claim,
    said: impl IntoIterator<Item = (String, Vec<u8>, Option<StoreErrorKind>)>,
) {
    assert_eq!(store.acquire(owner).await.unwrap(), FIRST);
    for (code, words, expected) in said {
        // Prepared, so that the reply that is exchanged is the statement's own.
        store.renew(&owner.held()).await.unwrap();
        proxy.last_words(words);
        let renewed = store.renew(&owner.held()).await;
        let kind = renewed.as_ref().err().map(StoreError::kind);
        assert_eq!(kind, expected, "{code}: {renewed:?}");
    }
}

/// What makes a server refuse the store's user, what it says then, and what makes it admit the user again.
type Refusal = [&'static str; 3];

/// The user's sessions are ended, and no new one is begun for a while.
async fn refuse_for_a_while(
    store: &AnyStore,
    (kind, url): (ServerKind, &str),
    refusals: [Refusal; 2],
    end_sessions: &str,
    sessions: &str,
) {
    let owner = new_claim(key(1));
    assert_eq!(store.acquire(&owner).await.unwrap(), FIRST);
    for [refuse, says, admit] in refusals {
        use_all(store).await;
        kind.run(url, refuse).await;
        kind.run(url, end_sessions).await;
        until_none(kind, url, sessions).await;
        // The second time there is no connection any more that has ended.
        for _ in 0..2 {
            let error = store.renew(&owner.held()).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            assert!(chain(&error).contains(says), "{}", chain(&error));
        }
        kind.run(url, admit).await;
        let renewed = store.renew(&owner.held()).await;
        assert_eq!(renewed.unwrap(), Write::Applied);
    }
    let completed = store.complete(&owner.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
}

/// OpenOptions many sessions a store has on a PostgreSQL.
const ON_POSTGRES: &str =
    "select count(*) from pg_stat_activity where application_name = 'idempotent'";

/// OpenOptions many sessions this user of a MariaDB has besides the one that asks.
fn on_mariadb(user: &str) -> String {
    format!(
        "select count(*) from information_schema.processlist \
         where id <> connection_id() and user = '{user}'"
    )
}

#[tokio::test]
async fn postgres_ends_sessions_that_are_idle() {
    let Some(server) = Postgres::with(&["idle_session_timeout=200ms"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    use_all(&store).await;
    until_none(ServerKind::Postgres, &server.url(), ON_POSTGRES).await;
    let acquired = store.acquire(&new_claim(key(1))).await;
    assert_eq!(acquired.unwrap(), FIRST);
    assert!(server.log().contains("idle-session timeout"));
}

#[tokio::test]
async fn postgres_refuses_the_user_for_a_while() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let (kind, admin) = (ServerKind::Postgres, server.url());
    // The one whose password is looked at.
    kind.run(&admin, "create role secretive login password 'right'")
        .await;
    let made = PostgresStore::builder().migrate(true);
    made.connect(&server.url()).await.unwrap().close().await;
    kind.run(
        &admin,
        "grant all on all tables in schema public to secretive",
    )
    .await;
    let url = format!(
        "postgres://secretive:right@127.0.0.1:{}/postgres?sslmode=disable",
        server.port()
    );
    let store = PostgresStore::builder().connections(3).connect(&url).await;
    let store = AnyStore::new(store.unwrap());
    let refusals = [
        [
            "alter role secretive password 'new'",
            "password authentication failed",
            "alter role secretive password 'right'",
        ],
        [
            "alter role secretive nologin",
            "not permitted to log in",
            "alter role secretive login",
        ],
    ];
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'secretive'";
    refuse_for_a_while(&store, (kind, &admin), refusals, end, ON_POSTGRES).await;
}

/// As an application's hook may do with each connection that comes back to its pool.
#[tokio::test]
async fn what_was_prepared_on_postgres_may_be_gone() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&server.url()).await.unwrap();
    let store = PostgresStore::builder().from_pool(pool.clone());
    store.migrate().await.unwrap();
    let owner = new_claim(key(1));
    for _ in 0..2 {
        assert_eq!(store.acquire(&owner).await.unwrap(), FIRST);
        pool.execute("discard all").await.unwrap();
    }
    assert_eq!(store.acquire(&owner).await.unwrap(), FIRST);
}

#[tokio::test]
async fn what_was_prepared_on_postgres_may_no_longer_fit_the_table() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    use_all(&store).await;
    for statement in [
        "create domain bytes as bytea",
        "alter table idempotency_records alter column trace_id type bytes",
    ] {
        ServerKind::Postgres.run(&server.url(), statement).await;
    }
    use_all(&store).await;
}

/// An error of PostgreSQL that ends its session.
fn fatal(code: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0Msomething\0\0");
    let length = u32::try_from(4 + fields.len()).unwrap();
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

#[tokio::test]
async fn what_postgres_and_what_stands_before_it_say_last() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let builder = PostgresStore::builder().migrate(true).connections(1);
    let store = builder.connect(&Postgres::url_of(proxy.port())).await;
    let store = AnyStore::new(store.unwrap());
    let owner = new_claim(key(1));
    let said = [
        ("57P01", None),
        ("57P05", None),
        ("25006", None),
        ("26000", None),
        ("40001", None),
        ("28P01", Some(StoreErrorKind::Unavailable)),
        ("53300", Some(StoreErrorKind::Unavailable)),
        ("57014", Some(StoreErrorKind::Unavailable)),
        ("XX000", Some(StoreErrorKind::Unavailable)),
        ("XX001", Some(StoreErrorKind::Corrupt)),
        ("0A000", Some(StoreErrorKind::Refused)),
    ];
    let said = said.map(|(code, kind)| (code.to_owned(), fatal(code), kind));
    say_last(&proxy, &store, &owner, said).await;
}

#[tokio::test]
async fn mysql_ends_sessions_that_are_idle() {
    let Some(server) = MariaDb::with(&["--wait-timeout=1"]) else {
        return;
    };
    let builder = MySqlStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    use_all(&store).await;
    until_none(ServerKind::MariaDb, &server.url(), &on_mariadb("root")).await;
    let acquired = store.acquire(&new_claim(key(1))).await;
    assert_eq!(acquired.unwrap(), FIRST);
}

#[tokio::test]
async fn mysql_refuses_the_user_for_a_while() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    for statement in [
        "create database shop",
        "create user app@'127.0.0.1' identified by 'pw'",
        "grant all on shop.* to app@'127.0.0.1'",
    ] {
        ServerKind::MariaDb.run(&server.url(), statement).await;
    }
    let url = format!("mysql://app:pw@127.0.0.1:{}/shop", server.port());
    let builder = MySqlStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&url).await.unwrap());
    let refusals = [
        [
            "alter user app@'127.0.0.1' identified by 'new'",
            "1045",
            "alter user app@'127.0.0.1' identified by 'pw'",
        ],
        [
            "revoke all on shop.* from app@'127.0.0.1'",
            "1044",
            "grant all on shop.* to app@'127.0.0.1'",
        ],
    ];
    let server = (ServerKind::MariaDb, &*server.url());
    refuse_for_a_while(
        &store,
        server,
        refusals,
        "kill user app",
        &on_mariadb("app"),
    )
    .await;
}

/// An error of MySQL, and the end of its session.
fn error(number: u16) -> Vec<u8> {
    let body = [&[0xff][..], &number.to_le_bytes(), b"#HY000something"].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[length, 0, 0, 1][..], &body].concat()
}

#[tokio::test]
async fn what_mysql_and_what_stands_before_it_say_last() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let builder = MySqlStore::builder().migrate(true).connections(1);
    let store = builder.connect(&MariaDb::url_of(proxy.port())).await;
    let store = AnyStore::new(store.unwrap());
    let owner = new_claim(key(1));
    let said = [
        (4031, None),
        (1053, None),
        (1290, None),
        (1047, None),
        (1243, None),
        (1615, None),
        (1213, None),
        (3101, None),
        (1205, Some(StoreErrorKind::Unavailable)),
        (1044, Some(StoreErrorKind::Unavailable)),
        (1045, Some(StoreErrorKind::Unavailable)),
        (1040, Some(StoreErrorKind::Unavailable)),
        (1114, Some(StoreErrorKind::Full)),
        (1665, Some(StoreErrorKind::Refused)),
    ];
    let said = said.map(|(number, kind)| (number.to_string(), error(number), kind));
    say_last(&proxy, &store, &owner, said).await;
}
