//! Files and disks that are full, callers that go away, other processes that write.

use std::time::Duration;

use idempotent_runtime::store::{
    Acquisition, Outcome, RecordState, Store, StoreErrorKind, Write,
    conformance::{claim, key, response},
    sql::sqlite::SqliteStore,
};

use super::{File, Sqlite};

fn answer(bytes: usize) -> Outcome {
    Outcome::Response(response(200, &[], &vec![7; bytes]))
}

#[tokio::test]
async fn a_full_file_refuses_new_records_and_keeps_the_old_ones() {
    let file = File::new();
    let store = SqliteStore::builder()
        .max_bytes(256 << 10)
        .connect(&file.url())
        .await
        .unwrap();
    let mut stored = Vec::new();
    let full = loop {
        let owner = claim::<Sqlite>(key(u8::try_from(stored.len() + 1).unwrap()));
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
        let again = store.acquire(&claim::<Sqlite>(owner.key)).await.unwrap();
        assert_eq!(
            again,
            Acquisition::Completed(answer(16 << 10)),
            "what was acknowledged is there"
        );
    }
}

#[tokio::test]
async fn a_step_that_fails_takes_nobody_with_it() {
    let file = File::new();
    let store = SqliteStore::builder()
        .max_bytes(256 << 10)
        .connect(&file.url())
        .await
        .unwrap();
    let large = claim::<Sqlite>(key(200));
    store.acquire(&large).await.unwrap();
    let small: Vec<_> = (1..=40).map(|n| claim::<Sqlite>(key(n))).collect();
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
    let file = File::new();
    let store = file.open().await;
    for round in 0..200_u32 {
        let claims: Vec<_> = (1..=8).map(|n| claim::<Sqlite>(key(n))).collect();
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
    let file = File::new();
    let store = file.open().await;
    let mut other = file.connect().await;
    sqlx::query("begin immediate")
        .execute(&mut other)
        .await
        .unwrap();
    let owner = claim::<Sqlite>(key(1));
    let waiting = tokio::time::timeout(Duration::from_millis(200), store.acquire(&owner)).await;
    waiting.expect_err("nobody else may write");
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    assert_eq!(
        store.acquire(&owner).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
}

/// A file system of one megabyte of its own, unmounted with this value.
#[cfg(target_os = "linux")]
struct SmallDisk(crate::servers::Folder);

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// Nothing, and word of it, where mounting is not permitted.
    fn mount() -> Option<Self> {
        use std::io::Write as _;

        let folder = crate::servers::Folder::new("disk");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(folder.path())
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(folder));
        }
        let _unread = writeln!(
            std::io::stderr(),
            "*** NOT TESTED, mounting needs root: a full disk"
        );
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _still_there = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

/// When the disk is full, nothing that was acknowledged is lost, nobody hangs, and there is room again when
/// there is room again.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let folder = disk.0.path();
    let store = SqliteStore::connect(&format!("sqlite://{}/records.db", folder.display()))
        .await
        .unwrap();
    std::fs::write(folder.join("filler"), vec![0; 600 << 10]).unwrap();
    let mut stored = Vec::new();
    let (full, unfinished) = loop {
        let owner = claim::<Sqlite>(key(u8::try_from(stored.len() + 1).unwrap()));
        match store.acquire(&owner).await {
            Ok(acquisition) => assert_eq!(acquisition, Acquisition::Acquired { attempt: 1 }),
            Err(error) => break (error, None),
        }
        match store.complete(&owner.held(), &answer(8 << 10)).await {
            Ok(write) => assert_eq!(write, Write::Applied),
            Err(error) => break (error, Some(owner)),
        }
        stored.push(owner);
    };
    // SQLite says "disk full" or, where it meets the limit in its log, "I/O error".
    assert!(
        matches!(
            full.kind(),
            StoreErrorKind::Full | StoreErrorKind::Unavailable
        ),
        "{full:?}"
    );
    assert!(!stored.is_empty());
    for owner in &stored {
        let record = store
            .get(&owner.key)
            .await
            .unwrap()
            .expect("what was acknowledged is there");
        assert_eq!(record.state, RecordState::Completed(answer(8 << 10)));
    }
    std::fs::remove_file(folder.join("filler")).unwrap();
    if let Some(owner) = unfinished {
        assert_eq!(
            store
                .complete(&owner.held(), &answer(8 << 10))
                .await
                .unwrap(),
            Write::Applied
        );
    }
    let next = claim::<Sqlite>(key(250));
    assert_eq!(
        store.acquire(&next).await.unwrap(),
        Acquisition::Acquired { attempt: 1 }
    );
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
        let done = claim::<Sqlite>(key(2));
        for owner in [claim::<Sqlite>(key(1)), done.clone()] {
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

    let file = File::new();
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
        let next = store.acquire(&claim::<Sqlite>(key(1))).await.unwrap();
        assert!(matches!(next, Acquisition::InFlight { .. }), "{next:?}");
        let next = store.acquire(&claim::<Sqlite>(key(2))).await.unwrap();
        assert_eq!(next, Acquisition::Completed(answer(100)), "round {round}");
        drop(store);
        sqlx::query("delete from idempotency_records")
            .execute(&mut file.connect().await)
            .await
            .unwrap();
    }
}
