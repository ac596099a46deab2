//! What a wrong URL, file or table says, and what opening a right one does.

use std::error::Error;

use idempotent_runtime::store::{
    Store,
    conformance::key,
    sql::{ConnectError, TableName, sqlite::SqliteStore},
};
use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteLockingMode},
};

use super::DatabaseFile;
use crate::toolbox::new_claim;

fn chain(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain = format!("{chain}: {error}");
        cause = error.source();
    }
    chain
}

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
            matches!(error, ConnectError::NotDurable { .. }),
            "{url}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named() {
    let error = refusal("sqlite:///nowhere/at/all/records.db").await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    let said = chain(&error);
    assert!(said.contains("/nowhere/at/all/records.db: "), "{said}");
    assert!(said.contains("folder has to exist"), "{said}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let file = DatabaseFile::new();
    std::fs::write(file.path(), b"not a database, but a letter of some length").unwrap();
    let error = refusal(&file.url()).await;
    assert!(
        chain(&error).contains("file is not a database"),
        "{}",
        chain(&error)
    );
}

#[tokio::test]
async fn a_file_that_must_not_be_written_to_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let error = refusal(&format!("{}?mode=ro", file.url())).await;
    assert!(chain(&error).contains("readonly"), "{}", chain(&error));
}

#[tokio::test]
async fn a_missing_table_says_how_to_make_it() {
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
        .expect("now it is there");

    // The table of its versions alone is not enough.
    sqlx::query("drop table idempotency_records")
        .execute(&mut file.connect().await)
        .await
        .unwrap();
    let error = builder().connect(&file.url()).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::MissingTable { .. }),
        "{error:?}"
    );
    // Outcomes were lost with it: whoever begins anew says so.
    let error = refusal(&file.url()).await;
    assert!(
        matches!(error, ConnectError::VanishedTable { found: 1.., .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("Restore it"), "{error}");
    sqlx::query("drop table idempotency_records_versions")
        .execute(&mut file.connect().await)
        .await
        .unwrap();
    let remade = file.open().await;
    remade.purge_expired(1).await.unwrap();
}

/// Less than a page of the file would be no limit, for SQLite.
#[tokio::test]
async fn a_limit_that_is_too_small_for_a_table_is_one() {
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
    sqlx::query("insert into idempotency_records_versions values (99)")
        .execute(&mut file.connect().await)
        .await
        .unwrap();
    let error = refusal(&file.url()).await;
    assert!(
        matches!(error, ConnectError::OtherVersion { found: 99, .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("update the crate"), "{error}");
}

#[tokio::test]
async fn a_table_may_be_called_anything_but_needs_no_schema() {
    let file = DatabaseFile::new();
    let store = |name: &str| SqliteStore::builder().table(name.parse::<TableName>().unwrap());
    let one = store("select").connect(&file.url()).await.unwrap();
    let other = store("Other").connect(&file.url()).await.unwrap();
    one.acquire(&new_claim(key(1))).await.unwrap();
    assert!(one.get(&key(1)).await.unwrap().is_some());
    assert!(
        other.get(&key(1)).await.unwrap().is_none(),
        "tables are apart"
    );
    store("main.records")
        .connect(&file.url())
        .await
        .expect_err("no schemas");
}

#[tokio::test]
async fn the_applications_own_pool_gives_the_file() {
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
async fn a_pool_that_does_not_flush_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let options: SqliteConnectOptions = file.url().parse().unwrap();
    // What the store sets itself wins; another spelling would win over it.
    let pool = SqlitePool::connect_lazy_with(options.clone().pragma("synchronous", "off"));
    SqliteStore::builder().from_pool(&pool).await.unwrap();
    let pool = SqlitePool::connect_lazy_with(options.pragma("Synchronous", "off"));
    let error = SqliteStore::builder().from_pool(&pool).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::NotDurable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("synchronous"), "{error}");
}

#[tokio::test]
async fn many_open_a_new_file_at_once() {
    let file = DatabaseFile::new();
    let url = file.url();
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let url = url.clone();
        opening.spawn(async move { SqliteStore::connect(&url).await });
    }
    for opened in opening.join_all().await {
        opened.expect("the file opens");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_file_and_its_companions_are_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let file = DatabaseFile::new();
    let store = file.open().await;
    store.acquire(&new_claim(key(1))).await.unwrap();
    for companion in ["", "-wal", "-shm"] {
        let path = format!("{}{companion}", file.path().display());
        let mode = std::fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{path}");
    }
}

/// What is not to be seen under its name could be exchanged unseen.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_under_its_name_is_refused() {
    let file = DatabaseFile::new();
    drop(file.open().await);
    let options = SqliteConnectOptions::new();
    let pool = |name: String| SqlitePool::connect_lazy_with(options.clone().filename(name));
    let builder = SqliteStore::builder;
    let path = file.path().display().to_string();
    builder().from_pool(&pool(path.clone())).await.unwrap();
    // What SQLite takes for a URL of the same file.
    let error = builder().from_pool(&pool(format!("file:{path}"))).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(chain(&error).contains("file:"), "{}", chain(&error));
}

#[tokio::test]
async fn a_pool_may_make_the_file_and_have_it_for_itself() {
    let file = DatabaseFile::new();
    let options = SqliteConnectOptions::new()
        .filename(file.path())
        .create_if_missing(true)
        .locking_mode(SqliteLockingMode::Exclusive);
    let pool = SqlitePool::connect_lazy_with(options);
    let store = SqliteStore::builder().from_pool(&pool).await.unwrap();
    store.acquire(&new_claim(key(1))).await.unwrap();
}
