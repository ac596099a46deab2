//! Which URLs, files, tables and pools are refused, and with which error; and which are opened.

use idempotent_runtime::store::{
    Store, Weakness,
    conformance::key,
    sql::{ConnectError, TableName, sqlite::SqliteStore},
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteLockingMode},
};

use super::DatabaseFile;
use crate::toolbox::{chain, new_claim};

async fn refusal(url: &str) -> ConnectError {
    SqliteStore::connect(url).await.expect_err("must not open")
}

#[tokio::test]
async fn wrong_urls_are_refused() {
    for url in [
        "",
        "sqlite://",
        "sqlite:relative.db?mode=upside-down",
        "postgres://localhost/x",
    ] {
        let error = refusal(url).await;
        assert!(
            matches!(error, ConnectError::Url { .. }),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_database_in_memory_is_refused() {
    for url in [
        "sqlite::memory:",
        "sqlite://:memory:",
        "sqlite://x?mode=memory",
    ] {
        let error = refusal(url).await;
        assert!(
            matches!(error, ConnectError::Unsuitable { .. }),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let error = refusal("sqlite:///nowhere/at/all/records.db").await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let text = chain(&error);
    assert!(text.contains("/nowhere/at/all/records.db: "), "{text}");
    assert!(
        text.contains("folder /nowhere/at/all does not exist"),
        "{text}"
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_folder_in_which_nothing_may_be_written_is_named_with_what_is_needed() {
    // Not even root may make a file there.
    let error = refusal("sqlite:///sys/records.db").await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let text = chain(&error);
    assert!(text.contains("/sys/records.db: "), "{text}");
    assert!(
        text.contains("needs permission to read and write the file, and to write in its folder"),
        "{text}"
    );
}

#[tokio::test]
async fn a_folder_in_the_place_of_a_file_or_a_file_in_the_place_of_a_folder_is_named() {
    let folder = std::env::temp_dir().join(format!("idempotent-folder-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let text = chain(&refusal(&format!("sqlite://{}", folder.display())).await);
    assert!(text.contains("is a folder: name a file in it"), "{text}");
    let file = folder.join("file");
    std::fs::write(&file, "").expect("a file");
    let text = chain(&refusal(&format!("sqlite://{}/records.db", file.display())).await);
    assert!(
        text.contains(&format!("{} is not a folder", file.display())),
        "{text}"
    );
    std::fs::remove_dir_all(&folder).expect("the folder exists");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_refused() {
    let file = DatabaseFile::new();
    std::fs::write(file.path(), b"not a database, but a letter of some length").unwrap();
    let error = refusal(&file.url()).await;
    let text = chain(&error);
    assert!(text.contains("file is not a database"), "{text}");
}

#[tokio::test]
async fn a_file_opened_read_only_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let error = refusal(&format!("{}?mode=ro", file.url())).await;
    assert!(chain(&error).contains("readonly"), "{}", chain(&error));
}

#[tokio::test]
async fn the_error_of_a_missing_table_says_how_to_make_it() {
    let file = DatabaseFile::new();
    let builder = || SqliteStore::builder().migrate(false);
    let error = builder().connect(&file.url()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::MissingTable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("migrate"), "{error}");

    drop(file.open().await);
    builder()
        .connect(&file.url())
        .await
        .expect("the table exists now");

    // The versions table alone is not enough.
    file.run("drop table idempotency_records").await;
    let error = builder().connect(&file.url()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::MissingTable { .. }),
        "{error:?}"
    );
    // Outcomes were lost with the table: an empty one is not made unless the operator removes the versions too.
    let error = refusal(&file.url()).await;
    assert!(
        matches!(error, ConnectError::VanishedTable { found: 1.., .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("Restore it"), "{error}");
    file.run("drop table idempotency_records_versions").await;
    let remade = file.open().await;
    remade.purge_expired(1).await.unwrap();
}

/// SQLite ignores a limit of less than one page.
#[tokio::test]
async fn a_limit_too_small_for_the_table_is_enforced() {
    let file = DatabaseFile::new();
    for bytes in [0, 64] {
        let builder = SqliteStore::builder().max_bytes(bytes);
        let error = builder.connect(&file.url()).await.expect_err("no room");
        assert!(chain(&error).contains("full"), "{bytes}: {}", chain(&error));
    }
}

#[tokio::test]
async fn a_table_of_a_later_version_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    file.run("insert into idempotency_records_versions (version) values (99)")
        .await;
    let error = refusal(&file.url()).await;
    assert!(
        matches!(error, ConnectError::OtherVersion { found: 99, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("update the crate"), "{error}");
}

#[tokio::test]
async fn a_table_may_have_any_name_and_no_schema() {
    let file = DatabaseFile::new();
    let store = |name: &str| SqliteStore::builder().table(name.parse::<TableName>().unwrap());
    let one = store("select").connect(&file.url()).await.unwrap();
    let other = store("Other").connect(&file.url()).await.unwrap();
    one.acquire(&new_claim(key(1))).await.unwrap();
    assert!(one.get(&key(1)).await.unwrap().is_some());
    let shown = other.get(&key(1)).await.unwrap();
    assert!(shown.is_none(), "another table");
    store("main.records")
        .connect(&file.url())
        .await
        .expect_err("no schemas");
}

#[tokio::test]
async fn a_store_from_the_applications_pool_uses_its_file() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let pool = SqlitePool::connect(&file.url()).await.unwrap();
    let store = SqliteStore::builder().from_pool(&pool).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
    let records: i64 = sqlx::query_scalar("select count(*) from idempotency_records")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(records, 1);
}

#[tokio::test]
async fn a_pool_whose_connections_do_not_flush_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let options: SqliteConnectOptions = file.url().parse().unwrap();
    // The store's own setting overrides one of the same spelling; another spelling would override the store's.
    let pool = SqlitePool::connect_lazy_with(options.clone().pragma("synchronous", "off"));
    SqliteStore::builder().from_pool(&pool).await.unwrap();
    let pool = SqlitePool::connect_lazy_with(options.pragma("Synchronous", "off"));
    let error = SqliteStore::builder().from_pool(&pool).await.unwrap_err();
    let ConnectError::Weak { found, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(found[0].weakness, Weakness::SynchronousBelowFull);
    assert_eq!(found[0].value, "0");
    assert!(error.to_string().contains("synchronous"), "{error}");
    let other = SqliteStore::builder().accept(Weakness::FsyncOff);
    other.from_pool(&pool).await.expect_err("another weakness");
    let accepting = SqliteStore::builder().accept(Weakness::SynchronousBelowFull);
    accepting.from_pool(&pool).await.expect("it is accepted");
}

#[tokio::test]
async fn a_new_file_may_be_opened_many_times_at_once() {
    let file = DatabaseFile::new();
    let url = file.url();
    let opening = (0..16).map(|_| SqliteStore::connect(&url));
    for opened in futures_util::future::join_all(opening).await {
        opened.expect("the file opens");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_and_its_log_are_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let file = DatabaseFile::new();
    let store = file.open().await;
    store.acquire(&new_claim(key(1))).await.unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", file.path().display());
        let mode = std::fs::metadata(&path)
            .expect("the file exists")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

/// The store could not detect that such a file was replaced.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_found_by_its_name_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let options = SqliteConnectOptions::new();
    let pool = |name: String| SqlitePool::connect_lazy_with(options.clone().filename(name));
    let builder = SqliteStore::builder;
    let path = file.path().display().to_string();
    builder().from_pool(&pool(path.clone())).await.unwrap();
    // SQLite reads this as a URL of the same file.
    let error = builder().from_pool(&pool(format!("file:{path}"))).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(chain(&error).contains("file:"), "{}", chain(&error));
}

#[tokio::test]
async fn a_pool_may_create_the_file_and_lock_it() {
    let file = DatabaseFile::new();
    let options = SqliteConnectOptions::new()
        .filename(file.path())
        .create_if_missing(true)
        .locking_mode(SqliteLockingMode::Exclusive);
    let pool = SqlitePool::connect_lazy_with(options);
    let store = SqliteStore::builder().from_pool(&pool).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
}
