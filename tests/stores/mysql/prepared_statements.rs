//! Prepared statements whose table changes.

use std::sync::atomic::{AtomicBool, Ordering};

use idempotent_runtime::store::{Outcome, Store, Write, conformance::key, sql::mysql::MySqlStore};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

use crate::{
    servers::mariadb::MariaDb,
    toolbox::{FIRST, new_claim},
};

/// Every operation once, on a record of its own.
async fn use_once(store: &MySqlStore, n: u8, change: &str) {
    let mine = new_claim(key(n));
    let acquired = store.acquire(&mine).await;
    assert_eq!(acquired.unwrap(), FIRST, "{change}");
    assert_eq!(store.renew(&mine.held()).await.unwrap(), Write::Applied);
    assert!(store.get(&mine.key).await.unwrap().is_some());
    let completed = store.complete(&mine.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    let fenced = store.abandon(&mine.key, &mine.token).await;
    assert_eq!(fenced.unwrap(), Write::Fenced);
    let fenced = store.release(&mine.key, &mine.token).await;
    assert_eq!(fenced.unwrap(), Write::Fenced);
    assert_eq!(store.purge_expired(10).await.unwrap(), 0);
}

/// How often the server prepared a statement again by itself.
async fn prepared_again(other: &mut MySqlConnection) -> u64 {
    let status = "show global status like 'Com_stmt_reprepare'";
    let (_, times): (String, String) = sqlx::query_as(status).fetch_one(other).await.unwrap();
    times.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_survive_changes_of_their_table() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let builder = MySqlStore::builder().migrate(true).connections(1);
    let store = builder.connect(&server.url()).await.unwrap();
    let mut other = MySqlConnection::connect(&server.url()).await.unwrap();
    use_once(&store, 0, "no change").await;
    let changes = [
        "flush tables",
        "alter table idempotency_records add column remark int",
        "alter table idempotency_records drop column remark",
        "alter table idempotency_records force",
        "optimize table idempotency_records",
        "analyze table idempotency_records",
    ];
    for (n, change) in (1..).zip(changes) {
        other.execute(change).await.unwrap();
        use_once(&store, n, change).await;
    }
    let between = prepared_again(&mut other).await;
    assert!(between > 0, "the server never prepared one again");

    // During the operations, as often as possible: the server fails a statement that it prepared again three times in vain.
    let over = AtomicBool::new(false);
    let changing = async {
        for n in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let remark = format!("alter table idempotency_records comment = '{n}'");
            other.execute(AssertSqlSafe(remark)).await.unwrap();
        }
    };
    let using = async {
        for n in 100..200 {
            use_once(&store, n, "remarks").await;
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(changing, using);
    let meanwhile = prepared_again(&mut other).await - between;
    assert!(meanwhile > 10, "prepared again {meanwhile} times");
}
