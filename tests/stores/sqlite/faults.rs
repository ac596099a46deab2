//! Files that are full, moved or locked, operations that are dropped, and processes that are killed.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use idempotent_runtime::store::{
    self, AnyStore, Outcome, Store, StoreErrorKind, Write, conformance::key,
    sql::sqlite::SqliteStore,
};

use super::DatabaseFile;
use crate::toolbox::{
    FIRST, acquire_all, assert_in_flight, chain, done, execute, large, new_claim, replays,
};

/// A store that may use a quarter of a megabyte.
async fn small_store(file: &DatabaseFile) -> AnyStore {
    let builder = SqliteStore::builder().max_bytes(256 << 10);
    AnyStore::new(builder.connect(&file.url()).await.expect("a store"))
}

#[tokio::test]
async fn a_full_file_refuses_new_records_and_keeps_the_old_ones() {
    let file = DatabaseFile::new();
    let store = small_store(&file).await;
    let mut stored = Vec::new();
    let full = loop {
        let mine = new_claim(key(u8::try_from(stored.len() + 1).unwrap()));
        let written = match store.acquire(&mine).await {
            Ok(acquisition) => {
                assert_eq!(acquisition, FIRST);
                store.complete(&mine.held(), &large(16 << 10)).await
            }
            Err(error) => Err(error),
        };
        match written {
            Ok(write) => assert_eq!(write, Write::Applied),
            Err(error) => break error,
        }
        stored.push(mine.key);
    };
    assert_eq!(full.kind(), StoreErrorKind::Full, "{full:?}");
    assert!(stored.len() > 5);
    for key in stored {
        replays(&store, key, &large(16 << 10)).await;
    }
}

/// In the transaction that it shares with others. It is left as it is, also when it has expired: it could be anything.
#[tokio::test]
async fn a_damaged_row_fails_alone() {
    for damage in [
        "attempt = 'many'",
        "attempt = -1, expires_at = 0, lease_until = 0",
        "attempt = 4294967296, expires_at = 0, lease_until = 0",
        "state = 'R'",
        "fingerprint = x'00', expires_at = 0, lease_until = 0",
        "token = x'00', expires_at = 0, lease_until = 0",
        "expires_at = 'soon', lease_until = 0",
    ] {
        let file = DatabaseFile::new();
        let store = file.open().await;
        let mine = new_claim(key(200));
        store.acquire(&mine).await.unwrap();
        file.run(&format!("update idempotency_records set {damage}"))
            .await;
        let other = new_claim(mine.key);
        let (damaged, others) = tokio::join!(
            store.acquire(&other),
            acquire_all(&store, (1..=20).map(key)),
        );
        let error = damaged.expect_err("the row is damaged");
        assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{damage}: {error:?}");
        for acquired in others {
            assert_eq!(acquired.unwrap(), FIRST);
        }
        let again = store
            .acquire(&other)
            .await
            .expect_err("it is left as it is");
        assert_eq!(again.kind(), StoreErrorKind::Corrupt, "{damage}: {again:?}");
    }
}

/// The store writes many operations in one transaction.
#[tokio::test]
async fn an_operation_that_fails_fails_no_other() {
    let file = DatabaseFile::new();
    let store = small_store(&file).await;
    let mine = new_claim(key(200));
    store.acquire(&mine).await.unwrap();
    let (held, too_large) = (mine.held(), large(1 << 20));
    let (refused, acquired) = tokio::join!(
        store.complete(&held, &too_large),
        acquire_all(&store, (1..=40).map(key))
    );
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Full);
    for acquisition in acquired {
        assert_eq!(acquisition.unwrap(), FIRST);
    }
    // A tombstone fits where the response did not.
    let completed = store.complete(&held, &Outcome::Tombstone).await;
    assert_eq!(completed.unwrap(), Write::Applied);
}

#[tokio::test]
async fn a_dropped_operation_harms_no_other() {
    let file = DatabaseFile::new();
    let store = file.open().await;
    for round in 0..200_u32 {
        let claims: Vec<_> = (1..=8).map(|n| new_claim(key(n))).collect();
        let acquiring = join_all(claims.iter().map(|claim| store.acquire(claim).boxed()));
        let soon = Duration::from_micros(u64::from(round) * 5);
        let _dropped = tokio::time::timeout(soon, acquiring).await;
        for mine in &claims {
            // The first acquire was carried out, and this repeats it, or it was not, and this is the first.
            assert_eq!(store.acquire(mine).await.unwrap(), FIRST);
            let released = store.release(&mine.key, &mine.token).await;
            assert_eq!(released.unwrap(), Write::Applied);
        }
    }
}

#[tokio::test]
async fn a_long_transaction_of_another_process_delays_operations_and_fails_none() {
    let file = DatabaseFile::new();
    let store = file.open().await;
    let mut other = file.connect().await;
    let mut transaction = async |statement: &'static str| {
        let run = sqlx::query(statement).execute(&mut other).await;
        run.expect("the statement runs");
    };
    transaction("begin immediate").await;
    let mine = new_claim(key(1));
    let waiting = tokio::time::timeout(Duration::from_millis(200), store.acquire(&mine)).await;
    waiting.expect_err("the transaction excludes other writers");
    transaction("rollback").await;
    assert_eq!(store.acquire(&mine).await.unwrap(), FIRST);
}

/// It would claim a key for a request that was answered already.
#[tokio::test]
async fn an_operation_that_was_given_up_while_the_file_was_locked_is_not_executed() {
    let file = DatabaseFile::new();
    let store = file.open().await;
    let mut other = file.connect().await;
    let (waits, follows) = (new_claim(key(1)), new_claim(key(2)));
    for statement in ["begin immediate", "rollback"] {
        let run = sqlx::query(statement).execute(&mut other).await;
        run.expect("the statement runs");
        if statement == "begin immediate" {
            // The first operation is the writer's own by now, the second is in its queue.
            for claim in [&waits, &follows] {
                let waiting = store.acquire(claim);
                let waiting = tokio::time::timeout(Duration::from_millis(100), waiting).await;
                waiting.expect_err("the transaction excludes other writers");
            }
        }
    }
    for claim in [&waits, &follows] {
        assert!(store.get(&claim.key).await.unwrap().is_none());
    }
}

/// The next process would find another file, or none, and would execute again what is completed here.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_was_moved_deleted_or_replaced_serves_no_operation() {
    for suffix in ["", "-wal", "-shm"] {
        for replaced in [false, true] {
            let file = DatabaseFile::new();
            let store = file.open().await;
            let completed = new_claim(key(1));
            execute(&store, &completed, &done()).await;
            let path = format!("{}{suffix}", file.path().display());
            let aside = format!("{path}.aside");
            std::fs::rename(&path, &aside).unwrap();
            if replaced {
                std::fs::write(&path, b"").unwrap();
            }
            let next = new_claim(key(2));
            let errors = [
                store.acquire(&next).await.map(drop),
                store.acquire(&new_claim(key(1))).await.map(drop),
                store.complete(&completed.held(), &done()).await.map(drop),
                store.get(&key(1)).await.map(drop),
            ];
            for error in errors {
                let error = error.expect_err("the file is gone");
                assert_eq!(
                    error.kind(),
                    StoreErrorKind::Unavailable,
                    "{path}: {error:?}"
                );
                let text = chain(&error);
                assert!(text.contains("moved, deleted or replaced"), "{text}");
            }
            // Moved back, it is used again.
            std::fs::rename(&aside, &path).unwrap();
            replays(&store, key(1), &done()).await;
            assert_eq!(store.acquire(&next).await.unwrap(), FIRST);
        }
    }
}

/// Other processes open the file that the link points to.
#[cfg(unix)]
#[tokio::test]
async fn a_link_to_the_file_is_followed_until_it_points_elsewhere() {
    let (file, other) = (DatabaseFile::new(), DatabaseFile::new());
    let (one, two) = (file.open().await, other.open().await);
    let link = file.path().with_extension("link");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    let store = store::connect(&format!("sqlite://{}", link.display())).await;
    let store = store.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
    assert!(one.get(&key(1)).await.unwrap().is_some());
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(other.path(), &link).unwrap();
    let error = store.acquire(&new_claim(key(2))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(two.get(&key(2)).await.unwrap().is_none());
}

/// The process that is killed; see the test that starts it. By itself it does nothing.
#[test]
fn holds_a_claim_until_it_is_killed() {
    let Some(url) = std::env::var_os("HOLD_A_CLAIM_IN") else {
        return;
    };
    let url = url.into_string().expect("a URL");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = store::connect(&url).await.expect("the file opens");
        assert_eq!(store.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
        execute(&store, &new_claim(key(2)), &done()).await;
        println!("claimed");
        std::future::pending::<()>().await;
    });
}

/// SIGKILL between the acquire and the completion: the next process finds what was acknowledged.
#[tokio::test]
async fn what_was_acknowledged_to_a_killed_process_is_there_for_the_next() {
    let file = DatabaseFile::new();
    for _ in 0..3 {
        let test = module_path!().split_once("::").expect("a crate").1;
        let test = format!("{test}::holds_a_claim_until_it_is_killed");
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args([&test, "--exact", "--nocapture"])
            .env("HOLD_A_CLAIM_IN", file.url())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let claimed = lines.any(|line| line.expect("a line").ends_with("claimed"));
        process.kill().expect("SIGKILL");
        process.wait().expect("its end");
        assert!(claimed, "the process claims");

        let store = file.open().await;
        assert_in_flight(&store.acquire(&new_claim(key(1))).await.unwrap());
        replays(&store, key(2), &done()).await;
        drop(store);
        file.run("delete from idempotency_records").await;
    }
}
