//! The servers that the same cases run on. The type of the store is erased here, so that each case is compiled once and
//! not once per store.

use std::time::Duration;

use futures_util::future::BoxFuture;
use idempotent_runtime::store::{
    AnyStore,
    sql::{ConnectError, TableName},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection};

use crate::servers::{mariadb::MariaDb, postgres::Postgres};

/// Makes one test of each case for each kind of server.
macro_rules! on_each_server {
    ($($case:ident,)*) => {
        mod postgres {
            use crate::sql::server::{ServerKind, on_each_server};
            on_each_server! { ServerKind::Postgres; $($case,)* }
        }

        mod mysql {
            use crate::sql::server::{ServerKind, on_each_server};
            on_each_server! { ServerKind::MariaDb; $($case,)* }
        }
    };
    ($kind:expr; $($case:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case($kind).await;
            }
        )*
    };
}
pub(crate) use on_each_server;

/// Evaluates the expression with the types of this kind under the given names: the store's, and that of its pool's options.
macro_rules! with_store {
    ($kind:expr, $store:ident $(, $options:ident)? => $expression:expr) => {
        match $kind {
            $crate::sql::server::ServerKind::Postgres => {
                use idempotent_runtime::PostgresStore as $store;
                $(use sqlx::postgres::PgPoolOptions as $options;)?
                $expression
            }
            $crate::sql::server::ServerKind::MariaDb => {
                use idempotent_runtime::MySqlStore as $store;
                $(use sqlx::mysql::MySqlPoolOptions as $options;)?
                $expression
            }
        }
    };
}
pub(super) use with_store;

/// A kind of server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ServerKind {
    Postgres,
    MariaDb,
}

/// A server that a test has to itself.
#[derive(Debug)]
pub(crate) enum Server {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// How a store is opened.
#[derive(Clone, Copy)]
pub(crate) struct OpenOptions {
    pub(crate) migrate: bool,
    pub(crate) time_out: Duration,
}

impl OpenOptions {
    /// The table must exist.
    pub(crate) const NO_MIGRATION: Self = Self {
        migrate: false,
        time_out: Duration::from_secs(2),
    };

    /// The table is made.
    pub(crate) const MIGRATE: Self = Self {
        migrate: true,
        ..Self::NO_MIGRATION
    };
}

impl ServerKind {
    /// A server of its own; nothing if it is not installed.
    pub(crate) fn start(self) -> Option<Server> {
        match self {
            Self::Postgres => Postgres::start().map(Server::Postgres),
            Self::MariaDb => MariaDb::start().map(Server::MariaDb),
        }
    }

    /// The URL of the server that all tests share; nothing if it is not installed.
    pub(crate) fn shared(self) -> Option<String> {
        match self {
            Self::Postgres => Postgres::shared().map(Postgres::url),
            Self::MariaDb => MariaDb::shared().map(MariaDb::url),
        }
    }

    pub(crate) fn is_postgres(self) -> bool {
        matches!(self, Self::Postgres)
    }

    pub(crate) fn url_of(self, port: u16) -> String {
        match self {
            Self::Postgres => Postgres::url_of(port),
            Self::MariaDb => MariaDb::url_of(port),
        }
    }

    /// Opens a store with its default settings.
    pub(crate) async fn connect(self, url: &str) -> Result<AnyStore, ConnectError> {
        with_store!(self, SqlStore => SqlStore::connect(url).await.map(AnyStore::new))
    }

    /// Opens a store with this table.
    pub(crate) async fn open(
        self,
        url: &str,
        table: &TableName,
        how: OpenOptions,
    ) -> Result<AnyStore, ConnectError> {
        with_store!(self, SqlStore => {
            let builder = SqlStore::builder().table(table.clone());
            let builder = builder.migrate(how.migrate).time_out(how.time_out);
            builder.connect(url).await.map(AnyStore::new)
        })
    }

    /// Runs a statement beside the store.
    pub(crate) async fn run(self, url: &str, statement: &str) {
        let run = match self {
            Self::Postgres => {
                let mut connection = PgConnection::connect(url).await.expect("a connection");
                connection.execute(AssertSqlSafe(statement)).await.map(drop)
            }
            Self::MariaDb => {
                let mut connection = MySqlConnection::connect(url).await.expect("a connection");
                connection.execute(AssertSqlSafe(statement)).await.map(drop)
            }
        };
        run.expect("the statement runs");
    }

    /// Runs a query beside the store and returns its number.
    pub(crate) async fn count(self, url: &str, query: &str) -> i64 {
        let count = match self {
            Self::Postgres => {
                let mut connection = PgConnection::connect(url).await.expect("a connection");
                sqlx::query_scalar(AssertSqlSafe(query))
                    .fetch_one(&mut connection)
                    .await
            }
            Self::MariaDb => {
                let mut connection = MySqlConnection::connect(url).await.expect("a connection");
                sqlx::query_scalar(AssertSqlSafe(query))
                    .fetch_one(&mut connection)
                    .await
            }
        };
        count.expect("a number")
    }

    /// The text of the server's error for a table that does not exist.
    pub(crate) fn missing_table(self, table: &TableName) -> String {
        match self {
            Self::Postgres => format!("relation \"{table}\" does not exist"),
            Self::MariaDb => format!(".{table}' doesn't exist"),
        }
    }

    /// The statement that records a later version of the table.
    pub(crate) fn later_version(self, table: &TableName) -> String {
        match self {
            Self::Postgres => format!("insert into {table}_versions (version) values (99)"),
            Self::MariaDb => format!(
                "insert into {table}_versions (version, applied_at) values (99, utc_timestamp())"
            ),
        }
    }
}

impl Server {
    fn kind(&self) -> ServerKind {
        match self {
            Self::Postgres(_) => ServerKind::Postgres,
            Self::MariaDb(_) => ServerKind::MariaDb,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.port(),
            Self::MariaDb(server) => server.port(),
        }
    }

    /// Kills it with SIGKILL and starts it again.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Postgres(server) => server.restart(),
            Self::MariaDb(server) => server.restart(),
        }
    }

    /// Stops all its processes where they are, or lets them go on.
    #[cfg(target_os = "linux")]
    pub(crate) fn freeze(&self, yes: bool) {
        match self {
            Self::Postgres(server) => server.freeze(yes),
            Self::MariaDb(server) => server.freeze(yes),
        }
    }

    /// Kills it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::MariaDb(server) => server.kill(),
        }
    }

    /// A store that reaches the server by this port and has at most so many connections.
    pub(crate) async fn store(&self, port: u16, connections: usize) -> AnyStore {
        self.closable_store(port, connections).await.0
    }

    /// As [`store`](Self::store), with a future that closes it.
    pub(crate) async fn closable_store(
        &self,
        port: u16,
        connections: usize,
    ) -> (AnyStore, BoxFuture<'static, ()>) {
        let url = self.kind().url_of(port);
        with_store!(self.kind(), SqlStore => {
            let builder = SqlStore::builder().connections(connections).migrate(true);
            let store = builder.connect(&url).await.expect("a store");
            let any = AnyStore::new(store.clone());
            (any, Box::pin(async move { store.close().await }))
        })
    }

    /// Stores whose operations time out after a second, each with so many connections that reach the server by this port:
    /// one with a pool of its own, and one with the application's.
    pub(crate) async fn impatient_stores(&self, port: u16, connections: u32) -> [AnyStore; 2] {
        let url = self.kind().url_of(port);
        let time_out = Duration::from_millis(500);
        with_store!(self.kind(), SqlStore, PoolOptions => {
            let own = SqlStore::builder().connections(connections as usize).migrate(true);
            let own = own.time_out(time_out).connect(&url).await;
            let pool = PoolOptions::new().max_connections(connections);
            let pool = pool.test_before_acquire(false).connect(&url).await;
            let applications = SqlStore::builder().time_out(time_out);
            let applications = applications.from_pool(pool.expect("a pool"));
            [
                AnyStore::new(own.expect("a store")),
                AnyStore::new(applications),
            ]
        })
    }
}
