//! Servers that stall: what was given up goes on there, and repetitions must not open more and more connections.

use std::time::Duration;

use futures_util::{FutureExt as _, future::join_all};
use idempotent_runtime::store::{AnyStore, Store, StoreErrorKind, Write, conformance::key};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{
    proxy::Proxy,
    servers::postgres::Postgres,
    sql::server::{Server, ServerKind, on_each_server},
    toolbox::{FIRST, acquire_all, answered, done, eventually, new_claim},
};

on_each_server! {
    a_frozen_server_gets_no_more_connections_than_configured,
    an_error_of_the_server_costs_no_connection,
}

/// The connections of each store.
const MAX: u32 = 3;

/// Callers that give up one after the other, and some that wait for the store's own time-out.
async fn give_up(store: &AnyStore) {
    for round in 0..6_u8 {
        let keys = (0..6).map(|n| key(100 + 6 * round + n));
        let soon = Duration::from_millis(100);
        // With two cores the machine may answer one before it is frozen.
        let _given_up = tokio::time::timeout(soon, acquire_all(store, keys)).await;
    }
    let mine = new_claim(key(99));
    let waiting = (0..6).map(|_| store.acquire(&mine).boxed());
    for answer in join_all(waiting).await {
        let error = answer.expect_err("no answer in time");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    }
}

/// As with a disk that hangs.
async fn a_frozen_server_gets_no_more_connections_than_configured(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let mut first = 1;
    for store in server.impatient_stores(proxy.port(), MAX).await {
        let mine = new_claim(key(first));
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
        let before = proxy.accepted();
        server.freeze(true);
        give_up(&store).await;
        let made = proxy.accepted() - before;
        server.freeze(false);
        assert!(
            made < u64::from(MAX),
            "{made} connections besides the first"
        );
        // The server has answered what was given up: all places are free again, and so is what it was asked then.
        let (held, outcome) = (mine.held(), done());
        let completed = answered(|| store.complete(&held, &outcome)).await;
        assert_eq!(completed, Write::Applied);
        let keys = (0..10).map(|n| key(first + 1 + n));
        for answer in acquire_all(&store, keys).await {
            assert_eq!(answer.unwrap(), FIRST);
        }
        first += 20;
    }
}

/// A record that another transaction has locked for too long.
async fn an_error_of_the_server_costs_no_connection(kind: ServerKind) {
    let Some(server) = kind.start() else { return };
    let proxy = Proxy::to(server.port());
    let store = server.store(proxy.port(), 1).await;
    let mine = new_claim(key(1));
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    let before = proxy.accepted();
    let lock = Lock::of_all(&server).await;
    let error = store.renew(&mine.held()).await.expect_err("it is locked");
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error:?}");
    lock.release().await;
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    assert_eq!(proxy.accepted(), before, "connections");
}

/// The lock that a transaction has on all records.
enum Lock {
    Postgres(PgConnection),
    MariaDb(sqlx::MySqlConnection),
}

impl Lock {
    async fn of_all(server: &Server) -> Self {
        const LOCK: &str = "select * from idempotency_records for update";
        match server {
            Server::Postgres(server) => {
                let mut connection = PgConnection::connect(&server.url()).await.unwrap();
                connection.execute("begin").await.unwrap();
                connection.execute(LOCK).await.unwrap();
                Self::Postgres(connection)
            }
            Server::MariaDb(server) => {
                let connection = sqlx::MySqlConnection::connect(&server.url()).await;
                let mut connection = connection.unwrap();
                connection.execute("begin").await.unwrap();
                connection.execute(LOCK).await.unwrap();
                Self::MariaDb(connection)
            }
        }
    }

    async fn release(self) {
        let released = match self {
            Self::Postgres(mut connection) => connection.execute("rollback").await.map(drop),
            Self::MariaDb(mut connection) => connection.execute("rollback").await.map(drop),
        };
        released.unwrap();
    }
}

/// A commit that waits for its standby outlives its connection, and no time-out of the server ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_away_opens_no_more_sessions_than_configured() {
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let (url, port) = (postgres.url(), postgres.port());
    let server = Server::Postgres(postgres);
    let stores = server.impatient_stores(port, MAX).await;
    let wait_for = async |standby: &str| {
        for statement in [
            &*format!("alter system set synchronous_standby_names = '{standby}'"),
            "select pg_reload_conf()",
        ] {
            ServerKind::Postgres.run(&url, statement).await;
        }
        let shown = format!(
            "select count(*) from pg_settings where name = 'synchronous_standby_names' and setting = '{standby}'"
        );
        let set = async || ServerKind::Postgres.count(&url, &shown).await == 1;
        eventually(set, || "the setting is not loaded".to_owned()).await;
    };
    for (n, store) in (1..).zip(&stores) {
        let mine = new_claim(key(n));
        assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
    }
    wait_for("away").await;
    for store in &stores {
        give_up(store).await;
    }
    let others = "select count(*) from pg_stat_activity \
                  where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let sessions = ServerKind::Postgres.count(&url, others).await;
    assert!(
        sessions <= i64::from(2 * MAX),
        "{sessions} sessions of two stores"
    );
    wait_for("").await;
    for store in &stores {
        for n in 200..206 {
            let claim = new_claim(key(n));
            let acquired = answered(|| store.acquire(&claim).boxed());
            drop(acquired.await);
        }
    }
}
