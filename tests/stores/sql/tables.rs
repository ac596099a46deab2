//! Tables that are missing, of another version, or made by many at once. The same for each SQL store on a server.

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

const AS_IT_IS: OpenOptions = OpenOptions {
    migrate: false,
    time_out: Duration::from_secs(2),
};

const MIGRATED: OpenOptions = OpenOptions {
    migrate: true,
    ..AS_IT_IS
};

on_each_server! {
    a_missing_table_says_how_to_make_it,
    a_table_of_a_later_version_is_refused,
    many_processes_migrate_at_once,
    a_statement_has_some_time_and_not_too_much,
}

async fn refused(kind: ServerKind, url: &str, table: &TableName, how: OpenOptions) -> ConnectError {
    let opened = kind.open(url, table, how).await;
    opened.err().expect("must not connect")
}

async fn a_missing_table_says_how_to_make_it(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let table = new_table();
    let error = refused(kind, url, &table, AS_IT_IS).await;
    assert_eq!(
        error.to_string(),
        format!(
            "the table {table} does not exist: create it once with `migrate()`, or with `.migrate(true)` on the builder"
        )
    );
    let made = kind.open(url, &table, MIGRATED).await;
    made.expect("made");
    let store = kind.open(url, &table, AS_IT_IS).await;
    let store = store.expect("now it is there");

    kind.run(url, &format!("drop table {table}")).await;
    let error = store.acquire(&new_claim(key(1))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    let said = chain(&error);
    assert!(said.contains(&kind.missing(&table)), "{said}");
    // The table of its versions is still there: that is not enough.
    let error = refused(kind, url, &table, AS_IT_IS).await;
    assert!(
        matches!(error, ConnectError::MissingTable { .. }),
        "{error:?}"
    );
    // Outcomes were lost with it: whoever begins anew says so.
    let error = refused(kind, url, &table, MIGRATED).await;
    assert!(
        matches!(error, ConnectError::VanishedTable { found: 1.., .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("Restore it"), "{error}");
    kind.run(url, &format!("drop table {table}_versions")).await;
    let remade = kind.open(url, &table, MIGRATED).await.unwrap();
    assert_eq!(remade.acquire(&new_claim(key(1))).await.unwrap(), FIRST);
}

async fn a_table_of_a_later_version_is_refused(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let table = new_table();
    kind.open(url, &table, MIGRATED).await.unwrap();
    kind.run(url, &kind.later(&table)).await;
    let error = refused(kind, url, &table, MIGRATED).await;
    assert!(
        matches!(error, ConnectError::OtherVersion { found: 99, .. }),
        "{error:?}"
    );
}

async fn many_processes_migrate_at_once(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let table = new_table();
    let migrating = (0..16).map(|_| kind.open(url, &table, MIGRATED));
    for migrated in futures_util::future::join_all(migrating).await {
        migrated.expect("a table");
    }
}

async fn a_statement_has_some_time_and_not_too_much(kind: ServerKind) {
    let Some(url) = kind.shared() else { return };
    let url = &url;
    let within = |time_out| OpenOptions {
        time_out,
        ..MIGRATED
    };
    for short in [Duration::ZERO, Duration::from_nanos(999_999)] {
        let error = refused(kind, url, &new_table(), within(short)).await;
        assert!(
            matches!(error, ConnectError::TimeOut { found, .. } if found == short),
            "{error:?}"
        );
        assert!(error.to_string().contains("1ms or more"), "{error}");
    }
    // The least there may be is too little for a machine that is busy, and that is told as something else.
    let least = kind
        .open(url, &new_table(), within(Duration::from_millis(1)))
        .await;
    let error = least.err();
    assert!(
        !matches!(error, Some(ConnectError::TimeOut { .. })),
        "{error:?}"
    );
    let store = kind.open(url, &new_table(), within(Duration::MAX)).await;
    let acquired = store.unwrap().acquire(&new_claim(key(1))).await;
    assert_eq!(acquired.unwrap(), FIRST);
}
