//! A database of the service, and what it holds of a case.

use idempotent_runtime::store;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, PgConnection, SqliteConnection};

use crate::{
    points::Point,
    servers::{Folder, mariadb::MariaDb, postgres::Postgres},
};

/// A database with the tables of the service and of the records.
pub(crate) struct Database {
    pub(crate) url: String,
    /// It ends with this value.
    _folder: Option<Folder>,
}

impl Database {
    /// Nothing if PostgreSQL is not installed. All tests have the same server.
    pub(crate) fn postgres() -> Option<Self> {
        Some(Self::new(Postgres::shared()?.url(), None))
    }

    /// Nothing if MariaDB is not installed. All tests have the same server.
    pub(crate) fn mariadb() -> Option<Self> {
        Some(Self::new(MariaDb::shared()?.url(), None))
    }

    pub(crate) fn sqlite() -> Self {
        let folder = Folder::new("failpoints");
        let file = folder.path().join("data.db");
        Self::new(
            format!("sqlite://{}?mode=rwc", file.display()),
            Some(folder),
        )
    }

    fn new(url: String, folder: Option<Folder>) -> Self {
        let database = Self {
            url,
            _folder: folder,
        };
        wait_for(async { drop(store::migrate(&database.url).await.expect("a store")) });
        for table in [
            "create table if not exists effects (name varchar(64) not null, note varchar(64) not null)",
            "create table if not exists counters (name varchar(64) not null primary key, n bigint not null)",
        ] {
            // Tests that begin at once may disturb each other.
            if self::wait_for(run(&database.url, table)).is_err() {
                wait_for(run(&database.url, table)).expect("a table");
            }
        }
        database
    }

    /// Whether a process can end there: there are no messages to a file.
    pub(crate) fn has(&self, point: Point) -> bool {
        !self.url.starts_with("sqlite")
            || !matches!(
                point,
                Point::CompletionLost | Point::CompletionDone | Point::CommitDone
            )
    }

    pub(crate) fn prepare(&self, case: &str) {
        let counter = format!("insert into counters values ('{case}', 0)");
        wait_for(run(&self.url, &counter)).expect("a counter");
    }

    /// The effects that were committed. Those of a step have the key that it passed on.
    pub(crate) fn effects(&self, case: &str) -> String {
        let count = |what: &str| {
            let statement = format!("select count({what}) from effects where name = '{case}'");
            self.number(&statement)
        };
        match (count("*"), count("distinct note")) {
            (0, _) => "no effect".into(),
            (1, _) => "one effect".into(),
            (2, 1) if case.starts_with("steps") => "two effects under one key".into(),
            (2, _) => "two effects".into(),
            (n, _) => format!("{n} effects"),
        }
    }

    pub(crate) fn record(&self, case: &str) -> &'static str {
        let count = |condition: &str| {
            self.number(&format!(
                "select count(*) from idempotency_records where endpoint = 'POST /{case}' and {condition}"
            ))
        };
        match (count("state = 0"), count("state <> 0")) {
            (0, 0) => "no record",
            (1, 0) => "a record in flight",
            (0, 1) => "the outcome",
            other => panic!("{case}: {other:?} records"),
        }
    }

    pub(crate) fn number(&self, statement: &str) -> i64 {
        wait_for(number(&self.url, statement)).expect("a number")
    }
}

fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}

/// Runs this with a connection to the database of this URL.
macro_rules! connected {
    ($url:expr, |$connection:ident| $run:expr) => {
        match $url.split(':').next() {
            Some("postgres") => {
                let mut $connection = PgConnection::connect($url).await?;
                $run
            }
            Some("mysql") => {
                let mut $connection = MySqlConnection::connect($url).await?;
                $run
            }
            _ => {
                let mut $connection = SqliteConnection::connect($url).await?;
                $run
            }
        }
    };
}

async fn run(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let statement = statement.to_owned();
    connected!(url, |connection| {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await?;
        connection.close().await
    })
}

async fn number(url: &str, statement: &str) -> Result<i64, sqlx::Error> {
    let statement = statement.to_owned();
    connected!(url, |connection| {
        let number = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(number)
    })
}
