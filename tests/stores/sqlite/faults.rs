//! Files that are full, callers that go away, other processes that write.

use std::time::Duration;

use idempotent_runtime::store::{
    Acquisition, Outcome, Store, StoreErrorKind, Write,
    conformance::{key, response},
    sql::sqlite::SqliteStore,
};

use super::DatabaseFile;
use crate::toolbox::new_claim;

fn answer(bytes: usize) -> Outcome {
    Outcome::Response(response(200, &[], &vec![7; bytes]))
}

#[tokio::test]
async fn a_full_file_refuses_new_records_and_keeps_the_old_ones() {
    let file = DatabaseFile::new();
    let store = SqliteStore::builder()
        .max_bytes(256 << 10)
        .connect(&file.url())
        .await
        .unwrap();
    let mut stored = Vec::new();
    let full = loop {
        let owner = new_claim(key(u8::try_from(stored.len() + 1).unwrap()));
        let acquired = match store.acquire(&owner).await {
            Ok(acquisition) => {
                assert_eq!(acquisition, Acquisition::Acquired { attempt: 1 });
                store.complete(&owner.held(), &answer(16 << 10)).await
            }
            Err(error) => Err(error),
        };
        match acquired {
            Ok(write) => assert_eq!(write, Write::Applied),
            Err(error) => break error,
        }
        stored.push(owner);
    };
    assert_eq!(full.kind(), StoreErrorKind::Full, "{full:?}");
    assert!(stored.len() > 5);
    for owner in &stored {
        let again = store.acquire(&new_claim(owner.key)).await.unwrap();
        assert_eq!(
            again,
            Acquisition::Completed(answer(16 << 10)),
            "what was acknowledged is there"
        );
    }
}

#[tokio::test]
async fn a_step_that_fails_takes_nobody_with_it() {
    let file = DatabaseFile::new();
    let store = SqliteStore::builder()
        .max_bytes(256 << 10)
        .connect(&file.url())
        .await
        .unwrap();
    let large = new_claim(key(200));
    store.acquire(&large).await.unwrap();
    let small: Vec<_> = (1..=40).map(|n| new_claim(key(n))).collect();
    let (held, too_much) = (large.held(), answer(1 << 20));
    let claims = small.iter().map(|owner| store.acquire(owner));
    let (refused, claimed) = tokio::join!(
        store.complete(&held, &too_much),
        futures_util::future::join_all(claims)
    );
    assert_eq!(refused.unwrap_err().kind(), StoreErrorKind::Full);
    for acquired in claimed {
        assert_eq!(acquired.unwrap(), Acquisition::Acquired { attempt: 1 });
    }
    // The execution that could not store so much may say that it is executed all the same.
    assert_eq!(
        store
            .complete(&large.held(), &Outcome::Tombstone)
            .await
            .unwrap(),
        Write::Applied
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_harms_nobody() {
    let file = DatabaseFile::new();
    let store = file.open().await;
    for round in 0..200_u32 {
        let claims: Vec<_> = (1..=8).map(|n| new_claim(key(n))).collect();
        let leaving = async {
            futures_util::future::join_all(claims.iter().map(|claim| store.acquire(claim))).await;
        };
        let _left =
            tokio::time::timeout(Duration::from_micros(u64::from(round) * 5), leaving).await;
        for owner in &claims {
            // Either it happened, and this is the repetition, or it did not, and this is the first.
            assert_eq!(
                store.acquire(owner).await.unwrap(),
                Acquisition::Acquired { attempt: 1 }
            );
            assert_eq!(
                store.release(&owner.key, &owner.token).await.unwrap(),
                Write::Applied
            );
        }
    }
}

#[tokio::test]
async fn another_process_that_writes_for_long_delays_and_breaks_nothing() {
    let file = DatabaseFile::new();
    let store = file.open().await;
    let mut other = file.connect().await;
    sqlx::query("begin immediate")
        .execute(&mut other)
        .await
        .unwrap();
    let owner = new_claim(key(1));
    let waiting = tokio::time::timeout(Duration::from_millis(200), store.acquire(&owner)).await;
    waiting.expect_err("nobody else may write");
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    assert_eq!(
        store.acquire(&owner).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
}

/// The next process would find another file, or none, and execute again what this one was told is done.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_there_any_more_is_no_place_for_records() {
    for gone in ["", "-wal", "-shm"] {
        for replaced in [false, true] {
            let file = DatabaseFile::new();
            let store = file.open().await;
            let done = new_claim(key(1));
            store.acquire(&done).await.unwrap();
            store.complete(&done.held(), &answer(1)).await.unwrap();
            let path = format!("{}{gone}", file.path().display());
            let aside = format!("{path}.aside");
            std::fs::rename(&path, &aside).unwrap();
            if replaced {
                std::fs::write(&path, b"").unwrap();
            }
            let next = new_claim(key(2));
            let errors = [
                store.acquire(&next).await.unwrap_err(),
                store.acquire(&new_claim(key(1))).await.unwrap_err(),
                store.complete(&done.held(), &answer(1)).await.unwrap_err(),
                store.get(&key(1)).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(
                    error.kind(),
                    StoreErrorKind::Unavailable,
                    "{path}: {error:?}"
                );
                let why = std::error::Error::source(&error).unwrap().to_string();
                assert!(why.contains("moved, deleted or replaced"), "{why}");
            }
            // Put back, it is what it was.
            std::fs::rename(&aside, &path).unwrap();
            let again = store.acquire(&new_claim(key(1))).await.unwrap();
            assert_eq!(again, Acquisition::Completed(answer(1)));
            assert_eq!(
                store.acquire(&next).await.unwrap(),
                Acquisition::Acquired { attempt: 1 }
            );
        }
    }
}

/// Other processes open what the link leads to.
#[cfg(unix)]
#[tokio::test]
async fn a_link_to_the_file_is_followed_as_long_as_it_leads_there() {
    let (file, other) = (DatabaseFile::new(), DatabaseFile::new());
    let (one, two) = (file.open().await, other.open().await);
    let link = file.path().with_extension("link");
    std::os::unix::fs::symlink(file.path(), &link).unwrap();
    let store = SqliteStore::connect(&format!("sqlite://{}", link.display()))
        .await
        .unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
    assert!(one.get(&key(1)).await.unwrap().is_some());
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(other.path(), &link).unwrap();
    let error = store.acquire(&new_claim(key(2))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert!(two.get(&key(2)).await.unwrap().is_none());
}

/// A process of its own, so that it can be killed; see the test that starts it. By itself it does nothing.
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
        let store = SqliteStore::connect(&url).await.expect("the file opens");
        let done = new_claim(key(2));
        for owner in [new_claim(key(1)), done.clone()] {
            store.acquire(&owner).await.expect("a claim");
        }
        let completed = store.complete(&done.held(), &answer(100)).await;
        assert_eq!(completed.expect("an outcome"), Write::Applied);
        println!("claimed");
        std::future::pending::<()>().await;
    });
}

/// SIGKILL between the acquire and the completion: what was acknowledged is there for the next process.
#[tokio::test]
async fn what_a_killed_process_was_told_is_there_for_the_next() {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    let file = DatabaseFile::new();
    for round in 0..3 {
        let test = module_path!().split_once("::").expect("a crate").1;
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args([
                &format!("{test}::holds_a_claim_until_it_is_killed"),
                "--exact",
                "--nocapture",
            ])
            .env("HOLD_A_CLAIM_IN", file.url())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut said = BufReader::new(process.stdout.take().expect("its output")).lines();
        let claimed = said.any(|line| line.expect("a line").ends_with("claimed"));
        process.kill().expect("SIGKILL");
        process.wait().expect("its end");
        assert!(claimed, "the process claims");

        let store = file.open().await;
        let next = store.acquire(&new_claim(key(1))).await.unwrap();
        assert!(matches!(next, Acquisition::InFlight { .. }), "{next:?}");
        let next = store.acquire(&new_claim(key(2))).await.unwrap();
        assert_eq!(next, Acquisition::Completed(answer(100)), "round {round}");
        drop(store);
        sqlx::query("delete from idempotency_records")
            .execute(&mut file.connect().await)
            .await
            .unwrap();
    }
}
