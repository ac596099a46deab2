//! Tables that are missing, of a later version, or made by many processes at once; and the time-out of statements.

use std::time::Duration;

use idempotent_runtime::store::{
    Store, StoreErrorKind,
    conformance::key,
    sql::{ConnectError, TableName},
};

use super::new_table;
use crate::{
    sql::server::{OpenOptions, ServerKind, on_each_server},
    toolbox::{FIRST, chain, new_claim},
};

on_each_server! {
    the_error_of_a_missing_table_says_how_to_make_it,
    a_table_of_a_later_version_is_refused,
    a_table_may_be_migrated_many_times_at_once,
    a_time_out_too_short_for_the_server_is_refused,
}

async fn refused(
    kind: ServerKind,
    url: &str,
    table: &TableName,
    options: OpenOptions,
) -> ConnectError {
    let opened = kind.open(url, table, options).await;
    opened.expect_err("must not connect")
}

async fn the_error_of_a_missing_table_says_how_to_make_it(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let table = new_table();
    let error = refused(kind, url, &table, OpenOptions::NO_MIGRATION).await;
    assert_eq!(
        error.to_string(),
        format!(
            "the table {table} does not exist: create it once with `migrate()`, or with `.migrate(true)` on the builder"
        )
    );
    let migrated = kind.open(url, &table, OpenOptions::MIGRATE).await;
    migrated.expect("the table is made");
    let store = kind.open(url, &table, OpenOptions::NO_MIGRATION).await;
    let store = store.expect("the table exists now");

    kind.run(url, &format!("drop table {table}")).await;
    let error = store.acquire(&new_claim(key(1))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    let text = chain(&error);
    assert!(text.contains(&kind.missing_table(&table)), "{text}");
    // The versions table still exists, which is not enough.
    let error = refused(kind, url, &table, OpenOptions::NO_MIGRATION).await;
    assert!(
        matches!(error, ConnectError::MissingTable { .. }),
        "{error:?}"
    );
    // Outcomes were lost with the table: an empty one is not made unless the operator removes the versions too.
    let error = refused(kind, url, &table, OpenOptions::MIGRATE).await;
    assert!(
        matches!(error, ConnectError::VanishedTable { found: 1.., .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("Restore it"), "{error}");
    kind.run(url, &format!("drop table {table}_versions")).await;
    let remade = kind.open(url, &table, OpenOptions::MIGRATE).await.unwrap();
    assert_eq!(remade.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
}

async fn a_table_of_a_later_version_is_refused(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let table = new_table();
    kind.open(url, &table, OpenOptions::MIGRATE).await.unwrap();
    kind.run(url, &kind.later_version(&table)).await;
    let error = refused(kind, url, &table, OpenOptions::MIGRATE).await;
    assert!(
        matches!(error, ConnectError::OtherVersion { found: 99, .. }),
        "{error:?}"
    );
}

async fn a_table_may_be_migrated_many_times_at_once(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let table = new_table();
    let migrating = (0..16).map(|_| kind.open(url, &table, OpenOptions::MIGRATE));
    for migrated in futures_util::future::join_all(migrating).await {
        migrated.expect("a table");
    }
}

async fn a_time_out_too_short_for_the_server_is_refused(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let within = |time_out| OpenOptions {
        time_out,
        ..OpenOptions::MIGRATE
    };
    for short in [Duration::ZERO, Duration::from_nanos(999_999)] {
        let error = refused(kind, url, &new_table(), within(short)).await;
        assert!(
            matches!(error, ConnectError::TimeOut { found, .. } if found == short),
            "{error:?}"
        );
        assert!(error.to_string().contains("1ms or more"), "{error}");
    }
    // The shortest time-out is accepted; on a busy machine it may pass, which is another error.
    let shortest = within(Duration::from_millis(1));
    let error = kind.open(url, &new_table(), shortest).await.err();
    assert!(
        !matches!(error, Some(ConnectError::TimeOut { .. })),
        "{error:?}"
    );
    let store = kind.open(url, &new_table(), within(Duration::MAX)).await;
    let acquired = store.unwrap().acquire(&new_claim(key(1))).await;
    assert_eq!(acquired.unwrap(), FIRST);
}
