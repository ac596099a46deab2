//! The three databases, each with a table of the application's beside that of the records.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use idempotent_runtime::{
    TransactionDatabase,
    store::{
        AnyStore, OutboxStore, Store,
        sql::{TableName, mysql::MySqlStore, postgres::PostgresStore, sqlite::SqliteStore},
    },
};
use sqlx::{
    AssertSqlSafe, Connection, Executor, IntoArguments, MySql, Postgres, Sqlite,
    pool::{Pool, PoolOptions},
};

use crate::servers::{Folder, mariadb::MariaDb, postgres};

/// Runs each test on each database.
macro_rules! on_each_database {
    ($($name:ident),* $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(world) = $crate::database::World::<sqlx::Postgres>::new().await {
                    super::$name(world).await;
                }
            })*
        }
        mod on_mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(world) = $crate::database::World::<sqlx::MySql>::new().await {
                    super::$name(world).await;
                }
            })*
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(world) = $crate::database::World::<sqlx::Sqlite>::new().await {
                    super::$name(world).await;
                }
            })*
        }
    };
}
pub(crate) use on_each_database;

/// A database in which one test works.
pub(crate) struct World<Db: TestDatabase> {
    pub(crate) pool: Pool<Db>,
    pub(crate) store: AnyStore,
    /// The application's table.
    pub(crate) effects: String,
    pub(crate) records: TableName,
    url: String,
    /// It ends with the last world.
    home: Option<Arc<Db::Home>>,
}

/// A database that the tests know.
pub(crate) trait TestDatabase: TransactionDatabase {
    /// A server or a folder, which ends with it.
    type Home: Send + Sync + 'static;

    /// Nothing if it is not installed.
    fn home() -> Option<Self::Home>;

    fn url(home: &Self::Home) -> String;

    /// Opens the store at this address.
    fn open(
        url: &str,
        records: &TableName,
        transactions: usize,
    ) -> impl Future<Output = AnyStore> + Send;

    /// Runs one statement without values, and says how many rows it changed.
    fn run(
        connection: &mut Self::Connection,
        statement: String,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send;

    /// Makes the session look for tables elsewhere.
    fn look_elsewhere(
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<u64, sqlx::Error>> + Send {
        Self::run(connection, Self::ELSEWHERE.into())
    }

    /// The statement that does.
    const ELSEWHERE: &'static str;

    /// Statements that change the session beyond its transaction.
    const SETTINGS: &'static [&'static str];

    /// What there is of them in this session.
    fn leftover(connection: &mut Self::Connection) -> impl Future<Output = Option<String>> + Send;

    /// Reads one number.
    fn number(
        pool: &Pool<Self>,
        statement: String,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;
}

impl<Db: TestDatabase> World<Db> {
    /// Nothing if it is not installed.
    pub(crate) async fn new() -> Option<Self> {
        let home = Db::home()?;
        let url = Db::url(&home);
        let world = Box::pin(Self::on(&url)).await;
        Some(Self {
            home: Some(Arc::new(home)),
            ..world
        })
    }

    /// In the database at this address, which the test keeps.
    pub(crate) async fn on(url: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let records: TableName = format!("records_{n}").parse().expect("a name");
        let options: <Db::Connection as Connection>::Options = url.parse().expect("options");
        let pool = PoolOptions::new()
            .max_connections(3)
            .connect_lazy_with(options);
        let store = Db::open(url, &records, 5).await;
        let world = Self {
            pool,
            store,
            effects: format!("effects_{n}"),
            records,
            url: url.to_owned(),
            home: None,
        };
        let mut connection = world.pool.acquire().await.expect("a connection");
        let made = format!(
            "create table {} (name varchar(64) not null, note varchar(64) not null, primary key (name))",
            world.effects
        );
        Db::run(&mut connection, made).await.expect("a table");
        world
    }

    /// Where the database is.
    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// The messages of the records' store.
    pub(crate) fn store_outbox(&self) -> &dyn OutboxStore {
        Store::outbox(&self.store).expect("SQL stores have an outbox")
    }

    /// How many effects were committed.
    pub(crate) async fn effects(&self) -> i64 {
        let statement = format!("select count(*) from {}", self.effects);
        Db::number(&self.pool, statement).await.expect("a count")
    }

    /// How many records there are that are completed.
    pub(crate) async fn completed(&self) -> i64 {
        let statement = format!("select count(*) from {} where state <> 0", self.records);
        Db::number(&self.pool, statement).await.expect("a count")
    }
}

impl<Db: TestDatabase> Clone for World<Db> {
    fn clone(&self) -> Self {
        Self {
            pool: self.pool.clone(),
            store: self.store.clone(),
            effects: self.effects.clone(),
            records: self.records.clone(),
            url: self.url.clone(),
            home: self.home.clone(),
        }
    }
}

async fn execute<'c, C, Db>(
    connection: C,
    statement: String,
) -> Result<Db::QueryResult, sqlx::Error>
where
    C: Executor<'c, Database = Db>,
    Db: sqlx::Database,
    Db::Arguments: IntoArguments<Db>,
{
    connection.execute(AssertSqlSafe(statement)).await
}

async fn opened<E: std::fmt::Debug, S: idempotent_runtime::store::Store>(
    opening: impl Future<Output = Result<S, E>>,
) -> AnyStore {
    AnyStore::new(opening.await.expect("the store opens"))
}

macro_rules! database {
    ($db:ty, $home:ty, $store:ty, $elsewhere:literal, $settings:expr, $leftover:literal, $start:expr, $url:expr, |$builder:ident, $transactions:ident| $sized:expr) => {
        impl TestDatabase for $db {
            type Home = $home;

            const ELSEWHERE: &'static str = $elsewhere;

            const SETTINGS: &'static [&'static str] = $settings;

            async fn leftover(connection: &mut Self::Connection) -> Option<String> {
                let read = sqlx::query_scalar($leftover).fetch_one(connection).await;
                read.expect("the session's settings")
            }

            fn home() -> Option<$home> {
                $start
            }

            fn url(home: &$home) -> String {
                $url(home)
            }

            async fn open(url: &str, records: &TableName, $transactions: usize) -> AnyStore {
                let $builder = <$store>::builder().table(records.clone()).migrate(true);
                opened($sized.connect(url)).await
            }

            async fn run(
                connection: &mut Self::Connection,
                statement: String,
            ) -> Result<u64, sqlx::Error> {
                Ok(execute(connection, statement).await?.rows_affected())
            }

            async fn number(pool: &Pool<Self>, statement: String) -> Result<i64, sqlx::Error> {
                sqlx::query_scalar(AssertSqlSafe(statement))
                    .fetch_one(pool)
                    .await
            }
        }
    };
}

database!(
    Postgres,
    &'static postgres::Postgres,
    PostgresStore,
    "set local search_path = pg_catalog",
    &[
        "set search_path = pg_catalog",
        "set synchronous_commit = off",
    ],
    "select case when current_setting('synchronous_commit') = 'off' then 'commits are not synchronous' end",
    postgres::Postgres::shared(),
    |home: &&'static postgres::Postgres| home.url(),
    |builder, transactions| builder.transactions(transactions)
);
database!(
    MySql,
    &'static MariaDb,
    MySqlStore,
    "use information_schema",
    &[
        "use information_schema",
        "set foreign_key_checks = 0, unique_checks = 0",
    ],
    "select if(@@foreign_key_checks and @@unique_checks, null, 'checks are off')",
    MariaDb::shared(),
    |home: &&'static MariaDb| home.url(),
    |builder, transactions| builder.transactions(transactions)
);
database!(
    Sqlite,
    Folder,
    SqliteStore,
    "select 1",
    &[],
    "select null",
    Some(Folder::new("transactions")),
    |home: &Folder| format!(
        "sqlite://{}?mode=rwc",
        home.path().join("data.db").display()
    ),
    |builder, _transactions| builder
);
