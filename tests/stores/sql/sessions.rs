//! Sessions that a server ends, changes or refuses, and the errors that it sends then. None of it loses a record.

use idempotent_runtime::store::{
    AnyStore, Outcome, Store, StoreError, StoreErrorKind, Write,
    conformance::key,
    sql::{mysql::MySqlStore, postgres::PostgresStore},
};
use sqlx::{Executor as _, postgres::PgPoolOptions};

use crate::{
    mysql::{make_user, user_url},
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

/// An error that is the last reply on a connection, by its code, and the kind of the store's error: none if the store
/// repeats the operation on another connection.
type LastError = (String, Vec<u8>, Option<StoreErrorKind>);

/// Replaces a reply by each of these errors.
async fn end_sessions_with(
    proxy: &Proxy,
    store: &AnyStore,
    errors: impl IntoIterator<Item = LastError>,
) {
    let mine = new_claim(key(1));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    for (code, reply, expected) in errors {
        // Prepares the statement, so that the replaced reply is the statement's own.
        store.renew(&mine.held()).await.unwrap();
        proxy.replace_next_reply(reply);
        let renewed = store.renew(&mine.held()).await;
        let kind = renewed.as_ref().err().map(StoreError::kind);
        assert_eq!(kind, expected, "{code}: {renewed:?}");
    }
}

/// The statement with which a server refuses the store's user, the error that it sends then, and the statement with which it
/// admits the user again.
type Refusal = [&'static str; 3];

/// Ends the user's sessions, and refuses new ones for a while.
async fn refuse_for_a_while(
    store: &AnyStore,
    (kind, url): (ServerKind, &str),
    refusals: [Refusal; 2],
    end_sessions: &str,
    sessions: &str,
) {
    let owner = new_claim(key(1));
    assert_eq!(store.acquire(&owner).await.unwrap(), FIRST);
    for [refuse, expected, admit] in refusals {
        use_all(store).await;
        kind.run(url, refuse).await;
        kind.run(url, end_sessions).await;
        until_none(kind, url, sessions).await;
        // The first time the store still has connections, which have ended; the second time it has none.
        for _ in 0..2 {
            let error = store.renew(&owner.held()).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
            let text = chain(&error);
            assert!(text.contains(expected), "{text}");
        }
        kind.run(url, admit).await;
        let renewed = store.renew(&owner.held()).await;
        assert_eq!(renewed.unwrap(), Write::Applied);
    }
    let completed = store.complete(&owner.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
}

/// How many sessions a store has on a PostgreSQL.
const POSTGRES_SESSIONS: &str =
    "select count(*) from pg_stat_activity where application_name = 'idempotent'";

/// How many sessions this user of a MariaDB has besides the one that runs this query.
fn mariadb_sessions(user: &str) -> String {
    format!(
        "select count(*) from information_schema.processlist \
         where id <> connection_id() and user = '{user}'"
    )
}

#[tokio::test]
async fn postgres_ends_idle_sessions() {
    let Some(server) = Postgres::with(&["idle_session_timeout=200ms"]) else {
        return;
    };
    let builder = PostgresStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    use_all(&store).await;
    until_none(ServerKind::Postgres, &server.url(), POSTGRES_SESSIONS).await;
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
    // The server demands a password of this user.
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
    refuse_for_a_while(&store, (kind, &admin), refusals, end, POSTGRES_SESSIONS).await;
}

/// An application's hook may discard them whenever a connection returns to its pool.
#[tokio::test]
async fn prepared_statements_of_postgres_may_be_discarded() {
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
async fn prepared_statements_of_postgres_may_not_match_a_changed_table() {
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

/// An error of PostgreSQL, or of a proxy before it, that ends its session.
fn fatal(code: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0Msomething\0\0");
    let length = u32::try_from(4 + fields.len()).unwrap();
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

#[tokio::test]
async fn errors_that_end_sessions_of_postgres_lose_no_record() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let builder = PostgresStore::builder().migrate(true).connections(1);
    let store = builder.connect(&Postgres::url_of(proxy.port())).await;
    let store = AnyStore::new(store.unwrap());
    let errors = [
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
    let errors = errors.map(|(code, kind)| (code.to_owned(), fatal(code), kind));
    end_sessions_with(&proxy, &store, errors).await;
}

#[tokio::test]
async fn mysql_ends_idle_sessions() {
    let Some(server) = MariaDb::with(&["--wait-timeout=1"]) else {
        return;
    };
    let builder = MySqlStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&server.url()).await.unwrap());
    use_all(&store).await;
    until_none(
        ServerKind::MariaDb,
        &server.url(),
        &mariadb_sessions("root"),
    )
    .await;
    // The server says nothing on the connections that it closes: the first acquire is an error, and its repetition meets
    // none of them.
    let mine = new_claim(key(1));
    let error = store.acquire(&mine).await.expect_err("no answer");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
}

#[tokio::test]
async fn mysql_refuses_the_user_for_a_while() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    make_user(&server).await;
    let builder = MySqlStore::builder().migrate(true).connections(3);
    let store = AnyStore::new(builder.connect(&user_url(server.port())).await.unwrap());
    let refusals = [
        [
            "alter user app@'127.0.0.1' identified by 'new'",
            "1045",
            "alter user app@'127.0.0.1' identified by 'pw'",
        ],
        [
            "revoke all on orders.* from app@'127.0.0.1'",
            "1044",
            "grant all on orders.* to app@'127.0.0.1'",
        ],
    ];
    let server = (ServerKind::MariaDb, &*server.url());
    refuse_for_a_while(
        &store,
        server,
        refusals,
        "kill user app",
        &mariadb_sessions("app"),
    )
    .await;
}

/// An error of MySQL, or of a proxy before it, that ends its session.
fn error(number: u16) -> Vec<u8> {
    let body = [&[0xff][..], &number.to_le_bytes(), b"#HY000something"].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[length, 0, 0, 1][..], &body].concat()
}

#[tokio::test]
async fn errors_that_end_sessions_of_mysql_lose_no_record() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let builder = MySqlStore::builder().migrate(true).connections(1);
    let store = builder.connect(&MariaDb::url_of(proxy.port())).await;
    let store = AnyStore::new(store.unwrap());
    let errors = [
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
    let errors = errors.map(|(number, kind)| (number.to_string(), error(number), kind));
    end_sessions_with(&proxy, &store, errors).await;
}

/// A proxy that lost its server: its other sessions of that server are lost too.
#[tokio::test]
async fn a_server_that_a_proxy_lost_spoils_all_older_sessions() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let builder = MySqlStore::builder().migrate(true).connections(3);
    let store = builder.connect(&MariaDb::url_of(proxy.port())).await;
    let store = AnyStore::new(store.unwrap());
    let mine = new_claim(key(1));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    use_all(&store).await;
    // Prepares the statement, so that the replaced reply is the statement's own.
    store.renew(&mine.held()).await.unwrap();
    let made = proxy.accepted();
    proxy.replace_next_reply(error(1927));
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    assert_eq!(proxy.accepted(), made + 1, "an older session is used again");
}

/// The server may have released the record before it ended the session: then the repetition finds none, and says nothing
/// about the first.
#[tokio::test]
async fn a_release_whose_session_was_ended_is_in_doubt() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let proxy = Proxy::to(server.port());
    let builder = MySqlStore::builder().migrate(true).connections(1);
    let store = builder.connect(&MariaDb::url_of(proxy.port())).await;
    let store = store.unwrap();
    let [first, second] = [1, 2].map(|n| new_claim(key(n)));
    for claim in [&first, &second] {
        assert_eq!(store.acquire(claim).await.unwrap(), FIRST);
    }
    // Prepares the statement.
    let released = store.release(&first.key, &first.token).await;
    assert_eq!(released.unwrap(), Write::Applied);
    proxy.replace_next_reply(error(1053));
    let error = store.release(&second.key, &second.token).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let again = store.release(&second.key, &second.token).await;
    assert_eq!(again.unwrap(), Write::Missing, "it was released");
}
