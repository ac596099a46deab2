//! Statements that a session prepared, and then something happens to their table.

use std::sync::atomic::{AtomicBool, Ordering};

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, Write, conformance::key, sql::mysql::MySqlStore,
};
use sqlx::{Connection as _, Executor as _, MySqlConnection};

use crate::{servers::mariadb::MariaDb, toolbox::new_claim};

/// Every verb once, on a record of its own.
async fn use_once(store: &impl Store, n: u8, what: &str) {
    let owner = new_claim(key(n));
    let acquired = store.acquire(&owner).await;
    assert_eq!(
        acquired.unwrap(),
        Acquisition::Acquired { attempt: 1 },
        "{what}"
    );
    assert_eq!(store.renew(&owner.held()).await.unwrap(), Write::Applied);
    assert!(store.get(&owner.key).await.unwrap().is_some());
    let completed = store.complete(&owner.held(), &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
    let fenced = store.abandon(&owner.key, &owner.token).await;
    assert_eq!(fenced.unwrap(), Write::Fenced);
    let fenced = store.release(&owner.key, &owner.token).await;
    assert_eq!(fenced.unwrap(), Write::Fenced);
    assert_eq!(store.purge_expired(10).await.unwrap(), 0);
}

/// How often the server prepared a statement anew.
async fn prepared_anew(behind: &mut MySqlConnection) -> u64 {
    let status = "show global status like 'Com_stmt_reprepare'";
    let (_, times): (String, String) = sqlx::query_as(status).fetch_one(behind).await.unwrap();
    times.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_prepared_fits_the_table_whatever_becomes_of_it() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let builder = MySqlStore::builder().migrate(true).connections(1);
    let store = builder.connect(&server.url()).await.unwrap();
    let mut behind = MySqlConnection::connect(&server.url()).await.unwrap();
    use_once(&store, 0, "nothing happened").await;
    let happenings = [
        "flush tables",
        "alter table idempotency_records add column remark int",
        "alter table idempotency_records drop column remark",
        "alter table idempotency_records force",
        "optimize table idempotency_records",
        "analyze table idempotency_records",
    ];
    for (n, what) in (1..).zip(happenings) {
        behind.execute(what).await.unwrap();
        use_once(&store, n, what).await;
    }
    let between = prepared_anew(&mut behind).await;
    assert!(between > 0, "the server never prepared one anew");

    // In the middle of the verbs, as often as can be: what was prepared in vain three times the server gives up.
    let over = AtomicBool::new(false);
    let happening = async {
        for n in 0.. {
            if over.load(Ordering::Relaxed) {
                break;
            }
            let remark = format!("alter table idempotency_records comment = '{n}'");
            behind.execute(&*remark).await.unwrap();
        }
    };
    let using = async {
        for n in 100..200 {
            use_once(&store, n, "remarks").await;
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(happening, using);
    let meanwhile = prepared_anew(&mut behind).await - between;
    assert!(meanwhile > 10, "{meanwhile} times");
}
