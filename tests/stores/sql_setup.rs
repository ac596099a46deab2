//! Tables that are missing, of another version, or made by many at once. The same for each SQL store on a server.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use idempotent_runtime::store::{
    Acquisition, Store, StoreErrorKind,
    conformance::{Harness, claim, key},
    sql::{ConnectError, TableName},
};

use crate::chain;

/// How a store is opened.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub(crate) migrate: bool,
    pub(crate) time_out: Duration,
}

const AS_IT_IS: How = How {
    migrate: false,
    time_out: Duration::from_secs(2),
};

const MIGRATED: How = How {
    migrate: true,
    ..AS_IT_IS
};

/// A store whose table can be chosen, on the server that all tests share.
pub(crate) trait OnTable: Harness {
    /// Whether there is such a server; if not, that was said.
    fn is_there() -> bool;
    async fn open_table(table: &TableName, how: How) -> Result<Self::Store, ConnectError>;
    /// Runs a statement behind the store's back.
    async fn run(statement: &str);
    /// What the server says of a table that is not there.
    fn missing(table: &TableName) -> String;
    /// The statement that makes the table one of a version that is to come.
    fn later(table: &TableName) -> String;
}

/// A name that no other test has.
pub(crate) fn new_table() -> TableName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    name.parse().expect("a name")
}

/// One test of each for each store.
macro_rules! on_servers {
    ($($case:ident,)*) => {
        on_servers! { postgres: OnPostgres; $($case,)* }
        on_servers! { mysql: OnMariaDb; $($case,)* }
    };
    ($store:ident: $harness:ident; $($case:ident,)*) => {
        mod $store {
            use crate::{$store::$harness, sql_setup::OnTable as _};
            $(
                #[tokio::test]
                async fn $case() {
                    if $harness::is_there() {
                        super::$case::<$harness>().await;
                    }
                }
            )*
        }
    };
}

on_servers! {
    a_missing_table_says_how_to_make_it,
    a_table_of_a_later_version_is_refused,
    many_processes_migrate_at_once,
    a_statement_has_some_time_and_not_too_much,
}

const FIRST: Acquisition = Acquisition::Acquired { attempt: 1 };

async fn refused<H: OnTable>(table: &TableName, how: How) -> ConnectError {
    let opened = H::open_table(table, how).await;
    opened.err().expect("must not connect")
}

async fn a_missing_table_says_how_to_make_it<H: OnTable>() {
    let table = new_table();
    let error = refused::<H>(&table, AS_IT_IS).await;
    assert_eq!(
        error.to_string(),
        format!(
            "the table {table} does not exist: create it once with `migrate()`, or with `.migrate(true)` on the builder"
        )
    );
    let made = H::open_table(&table, MIGRATED).await;
    made.expect("made");
    let store = H::open_table(&table, AS_IT_IS).await;
    let store = store.expect("now it is there");

    H::run(&format!("drop table {table}")).await;
    let error = store.acquire(&claim::<H>(key(1))).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    let said = chain(&error);
    assert!(said.contains(&H::missing(&table)), "{said}");
    // The table of its versions is still there: that is not enough.
    let error = refused::<H>(&table, AS_IT_IS).await;
    assert!(
        matches!(error, ConnectError::MissingTable { .. }),
        "{error:?}"
    );
    // Outcomes were lost with it: whoever begins anew says so.
    let error = refused::<H>(&table, MIGRATED).await;
    assert!(
        matches!(error, ConnectError::VanishedTable { found: 1.., .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("Restore it"), "{error}");
    H::run(&format!("drop table {table}_versions")).await;
    let remade = H::open_table(&table, MIGRATED).await.unwrap();
    assert_eq!(remade.acquire(&claim::<H>(key(1))).await.unwrap(), FIRST);
}

async fn a_table_of_a_later_version_is_refused<H: OnTable>() {
    let table = new_table();
    H::open_table(&table, MIGRATED).await.unwrap();
    H::run(&H::later(&table)).await;
    let error = refused::<H>(&table, MIGRATED).await;
    assert!(
        matches!(error, ConnectError::OtherVersion { found: 99, .. }),
        "{error:?}"
    );
}

async fn many_processes_migrate_at_once<H: OnTable>() {
    let table = new_table();
    let migrating = (0..16).map(|_| H::open_table(&table, MIGRATED));
    for migrated in futures_util::future::join_all(migrating).await {
        migrated.expect("a table");
    }
}

async fn a_statement_has_some_time_and_not_too_much<H: OnTable>() {
    let within = |time_out| How {
        time_out,
        ..MIGRATED
    };
    for short in [Duration::ZERO, Duration::from_nanos(999_999)] {
        let error = refused::<H>(&new_table(), within(short)).await;
        assert!(
            matches!(error, ConnectError::TimeOut { found, .. } if found == short),
            "{error:?}"
        );
        assert!(error.to_string().contains("1ms or more"), "{error}");
    }
    // The least there may be is too little for a machine that is busy, and that is told as something else.
    let least = H::open_table(&new_table(), within(Duration::from_millis(1))).await;
    let error = least.err();
    assert!(
        !matches!(error, Some(ConnectError::TimeOut { .. })),
        "{error:?}"
    );
    let store = H::open_table(&new_table(), within(Duration::MAX)).await;
    let acquired = store.unwrap().acquire(&claim::<H>(key(1))).await;
    assert_eq!(acquired.unwrap(), FIRST);
}
