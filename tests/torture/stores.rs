//! The stores that are tested, each with its server.

use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

/// The store to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// A private Redis that flushes its append-only file before it acknowledges.
    Redis,
    /// A private Redis without persistence.
    RedisWeak,
    /// A private PostgreSQL.
    Postgres,
    /// A private MariaDB with a binary log.
    MariaDb,
    /// A private MariaDB without a binary log.
    MariaDbWeak,
    /// A SQLite file that all processes share.
    Sqlite,
    /// The store of this URL.
    Running(String),
}

/// The running server of a store.
#[derive(Debug)]
pub(crate) enum Backend {
    Redis(Redis),
    Postgres(Postgres),
    MariaDb(MariaDb),
    Sqlite(Folder),
    Running(String),
}

impl StoreKind {
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "redis" => Self::Redis,
            "redis-weak" => Self::RedisWeak,
            "postgres" => Self::Postgres,
            "mariadb" => Self::MariaDb,
            "mariadb-weak" => Self::MariaDbWeak,
            "sqlite" => Self::Sqlite,
            url => Self::Running(url.to_owned()),
        }
    }

    /// Whether it has a server that the run may kill.
    pub(crate) fn can_be_killed(&self) -> bool {
        !matches!(self, Self::Sqlite | Self::Running(_))
    }

    /// Whether its records can be completed in a transaction of the application.
    pub(crate) fn is_sql(&self) -> bool {
        let sql = |url: &str| {
            ["postgres", "mysql", "sqlite"]
                .iter()
                .any(|name| url.starts_with(name))
        };
        match self {
            Self::Redis | Self::RedisWeak => false,
            Self::Postgres | Self::MariaDb | Self::MariaDbWeak | Self::Sqlite => true,
            Self::Running(url) => sql(url),
        }
    }

    /// Starts it; nothing if its server is not installed.
    pub(crate) fn start(&self) -> Option<Backend> {
        Some(match self {
            Self::Redis => Backend::Redis(Redis::flushing()?),
            Self::RedisWeak => Backend::Redis(Redis::with(&[])?),
            Self::Postgres => Backend::Postgres(Postgres::start()?),
            Self::MariaDb => Backend::MariaDb(MariaDb::flushing()?),
            Self::MariaDbWeak => Backend::MariaDb(MariaDb::start()?),
            Self::Sqlite => Backend::Sqlite(Folder::new("torture-sqlite")),
            Self::Running(url) => Backend::Running(url.clone()),
        })
    }
}

impl Backend {
    /// The store's URL.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::Postgres(postgres) => postgres.url(),
            Self::MariaDb(mariadb) => mariadb.url(),
            Self::Sqlite(folder) => {
                format!("sqlite://{}", folder.path().join("records.db").display())
            }
            Self::Running(url) => url.clone(),
        }
    }

    /// The port of a server that was started here.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Redis(redis) => Some(redis.port()),
            Self::Postgres(postgres) => Some(postgres.port()),
            Self::MariaDb(mariadb) => Some(mariadb.port()),
            Self::Sqlite(_) | Self::Running(_) => None,
        }
    }

    /// Kills the server with SIGKILL, restarts it, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Redis(redis) => redis.restart(),
            Self::Postgres(postgres) => postgres.restart(),
            Self::MariaDb(mariadb) => mariadb.restart(),
            Self::Sqlite(_) | Self::Running(_) => {}
        }
    }
}
