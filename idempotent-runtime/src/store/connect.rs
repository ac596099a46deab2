//! One URL chooses the store.

use std::{error::Error, fmt, sync::Arc};

use super::{
    Store,
    erased::ErasedStore,
    error::StoreError,
    record::{Acquisition, Claim, Held, Outcome, Record, Write},
    token::Token,
    wake::Wake,
};
use crate::scope::StoreKey;

/// A store that was chosen while the program runs. Clones share it.
#[derive(Clone)]
pub struct AnyStore(Arc<dyn ErasedStore>);

/// Why no store could be had for a URL. No message contains the URL, which may contain a password.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no store with this scheme.
    UnknownScheme {
        /// What stands before the first `:`, if anything does.
        scheme: Box<str>,
    },
    /// The store was not compiled in.
    MissingFeature {
        /// What stands before the first `:`.
        scheme: Box<str>,
        /// The feature of this crate that brings the store.
        feature: &'static str,
    },
    /// The store of this URL could not be opened.
    #[cfg(feature = "redis")]
    Redis(super::redis::ConnectError),
    /// The store of this URL could not be opened.
    #[cfg(feature = "sql")]
    Sql(super::sql::ConnectError),
}

/// Opens the store of this URL, with default settings.
///
/// | URL | store | feature |
/// |---|---|---|
/// | `memory:` | [`MemoryStore`](crate::MemoryStore) | `memory` |
/// | `sqlite://path/to/file.db` | `SqliteStore` | `sqlite` |
/// | `postgres://`, `postgresql://` | `PostgresStore` | `postgres` |
/// | `mysql://`, `mariadb://` | `MySqlStore` | `mysql` |
/// | `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://`, … and `valkey` likewise | `RedisStore` | `redis` |
///
/// Every store has its default settings then; its builder has the others.
///
/// ```no_run
/// use idempotent_runtime::{Idempotency, store};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let url = std::env::var("IDEMPOTENT_STORE").unwrap_or_else(|_| "memory:".into());
/// let idempotency = Idempotency::builder().store(store::connect(&url).await?).build()?;
/// # Ok(())
/// # }
/// ```
///
/// A database server's table must be there: see [`migrate`].
///
/// # Errors
///
/// If the URL is wrong, its store was not compiled in, or it cannot be opened. The message says what to do.
pub async fn connect(url: &str) -> Result<AnyStore, ConnectError> {
    open(url, Tables::Expected).await
}

/// Opens the store of this URL, and makes its table or brings it up to date before. Many processes may do so at
/// once. Stores that need no table are only opened.
///
/// # Errors
///
/// As [`connect`], or if the user of the URL may not change the schema.
pub async fn migrate(url: &str) -> Result<AnyStore, ConnectError> {
    open(url, Tables::Made).await
}

/// Whether tables are there already.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(any(feature = "mysql", feature = "postgres")), allow(dead_code))]
enum Tables {
    Expected,
    Made,
}

/// The stores, as schemes name them.
#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Redis,
    Postgres,
    MySql,
    Sqlite,
}

impl Kind {
    fn of(scheme: &str) -> Option<Self> {
        // `redis+sentinel` and its kin are for the store to tell apart. The other stores have no kin.
        let family = match scheme.split_once('+') {
            Some((family @ ("redis" | "rediss" | "valkey" | "valkeys"), _)) => family,
            _ => scheme,
        };
        match family {
            "memory" => Some(Self::Memory),
            "redis" | "rediss" | "valkey" | "valkeys" => Some(Self::Redis),
            "postgres" | "postgresql" => Some(Self::Postgres),
            "mysql" | "mariadb" => Some(Self::MySql),
            "sqlite" => Some(Self::Sqlite),
            _ => None,
        }
    }

    fn feature(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
            Self::Sqlite => "sqlite",
        }
    }
}

#[cfg_attr(
    not(any(feature = "redis", feature = "sql")),
    allow(clippy::unused_async)
)]
#[cfg_attr(
    not(any(feature = "mysql", feature = "postgres")),
    allow(unused_variables)
)]
async fn open(url: &str, tables: Tables) -> Result<AnyStore, ConnectError> {
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let Some(kind) = Kind::of(scheme) else {
        return Err(ConnectError::UnknownScheme {
            scheme: shown(scheme),
        });
    };
    match kind {
        #[cfg(feature = "memory")]
        Kind::Memory => Ok(AnyStore::new(super::memory::MemoryStore::new())),
        #[cfg(feature = "redis")]
        Kind::Redis => {
            let store = super::redis::RedisStore::connect(url).await;
            store.map(AnyStore::new).map_err(ConnectError::Redis)
        }
        #[cfg(feature = "postgres")]
        Kind::Postgres => {
            let builder = super::sql::postgres::PostgresStore::builder();
            let store = builder.migrate(tables == Tables::Made).connect(url).await;
            Ok(AnyStore::new(store?))
        }
        #[cfg(feature = "mysql")]
        Kind::MySql => {
            let builder = super::sql::mysql::MySqlStore::builder();
            let store = builder.migrate(tables == Tables::Made).connect(url).await;
            Ok(AnyStore::new(store?))
        }
        #[cfg(feature = "sqlite")]
        Kind::Sqlite => Ok(AnyStore::new(
            super::sql::sqlite::SqliteStore::connect(url).await?,
        )),
        // Which stores are left depends on the features.
        #[allow(unreachable_patterns)]
        missing => Err(ConnectError::MissingFeature {
            scheme: scheme.into(),
            feature: missing.feature(),
        }),
    }
}

/// A scheme as it may be shown. A URL that forgot its own may have a user and password there.
fn shown(scheme: &str) -> Box<str> {
    let is_scheme = scheme.len() <= 32
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if is_scheme { scheme.into() } else { "".into() }
}

impl AnyStore {
    /// Any store, as one that was chosen while the program runs.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

impl Store for AnyStore {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn acquire(&self, claim: &Claim) -> Result<Acquisition, StoreError> {
        self.0.acquire(claim).await
    }

    async fn renew(&self, held: &Held) -> Result<Write, StoreError> {
        self.0.renew(held).await
    }

    async fn complete(&self, held: &Held, outcome: &Outcome) -> Result<Write, StoreError> {
        self.0.complete(held, outcome).await
    }

    async fn release(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.release(key, token).await
    }

    async fn abandon(&self, key: &StoreKey, token: &Token) -> Result<Write, StoreError> {
        self.0.abandon(key, token).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        self.0.get(key).await
    }

    async fn purge_expired(&self, limit: usize) -> Result<usize, StoreError> {
        self.0.purge_expired(limit).await
    }

    fn attach(&self, wake: Wake) {
        self.0.attach(wake);
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyStore").field(&self.0.name()).finish()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownScheme { scheme } => write!(
                f,
                "no store has the scheme {scheme:?}: use memory:, sqlite://, postgres://, mysql:// or redis://"
            ),
            Self::MissingFeature { scheme, feature } => write!(
                f,
                "the store of {scheme}: was not compiled in: build idempotent-runtime with the feature `{feature}`"
            ),
            #[cfg(feature = "redis")]
            Self::Redis(error) => error.fmt(f),
            #[cfg(feature = "sql")]
            Self::Sql(error) => error.fmt(f),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // Their message is this one's already.
            #[cfg(feature = "redis")]
            Self::Redis(error) => error.source(),
            #[cfg(feature = "sql")]
            Self::Sql(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(feature = "sql")]
impl From<super::sql::ConnectError> for ConnectError {
    fn from(error: super::sql::ConnectError) -> Self {
        Self::Sql(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime
            .block_on(connect(url))
            .expect_err("no store")
            .to_string()
    }

    #[test]
    fn a_url_without_a_store_says_which_there_are() {
        for url in [
            "",
            "records.db",
            "http://example.com",
            "Memory",
            "memory+sentinel://host",
            "postgres+tls://host",
        ] {
            let message = refusal(url);
            assert!(
                message.starts_with("no store has the scheme"),
                "{url}: {message}"
            );
            assert!(message.contains("sqlite://"), "{message}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        assert!(!refusal("app hunter2@db:5432/x").contains("hunter2"));
    }

    #[cfg(not(feature = "mysql"))]
    #[test]
    fn a_store_that_was_not_compiled_in_names_its_feature() {
        assert!(refusal("mariadb://localhost/x").ends_with("with the feature `mysql`"));
    }

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn memory_is_a_store() {
        for url in ["memory:", "memory://"] {
            let store = connect(url).await.expect("a store");
            assert_eq!(Store::name(&store), "memory");
        }
    }
}
