//! The stores that are tortured, each with the server behind it.

use crate::servers::{Folder, mariadb::MariaDb, postgres::Postgres, redis::Redis};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// A Redis of our own that flushes its append-only file before it answers.
    Redis,
    /// A Redis of our own, without persistence.
    RedisWeak,
    /// A PostgreSQL of our own.
    Postgres,
    /// A MariaDB of our own, with a binary log.
    MariaDb,
    /// A MariaDB of our own, without one.
    MariaDbWeak,
    /// A file that all processes share.
    Sqlite,
    /// Whatever this URL names.
    Running(String),
}

/// What is there.
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

    /// Whether there is a server, and it is ours to kill.
    pub(crate) fn can_be_killed(&self) -> bool {
        !matches!(self, Self::Sqlite | Self::Running(_))
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
    /// As the demo takes it.
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

    /// SIGKILLs the server and waits until the next one answers.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Redis(redis) => redis.restart(),
            Self::Postgres(postgres) => postgres.restart(),
            Self::MariaDb(mariadb) => mariadb.restart(),
            Self::Sqlite(_) | Self::Running(_) => {}
        }
    }
}
