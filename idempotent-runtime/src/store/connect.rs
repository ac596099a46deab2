//! [`connect`] and [`migrate`]: a URL chooses the store at run time.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Store,
    admin::Administrable,
    erased::ErasedStore,
    error::StoreError,
    inspect::Inspectable,
    outbox::OutboxStore,
    record::{Acquisition, Claim, Held, Outcome, Record, Write},
    steps::StepLog,
    token::Token,
    transaction::Transactions,
    wake::Wake,
    weakness::{Accepted, Weakness},
};
use crate::scope::StoreKey;

mod error;

pub use error::ConnectError;

/// A store of any kind, chosen at run time. Clones share it.
#[derive(Clone)]
pub struct AnyStore(Arc<dyn ErasedStore>);

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
/// The scheme may be in any case, and white space around the URL does not count. For a server that may still be starting,
/// see [`ConnectOptions::retry_for`]; for other settings use the store's own builder.
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
/// The table of a database server must exist: see [`migrate`].
///
/// # Errors
///
/// If the URL is wrong, its store is not compiled in, or the store cannot be opened. The message says what to do.
pub async fn connect(url: &str) -> Result<AnyStore, ConnectError> {
    ConnectOptions::new().connect(url).await
}

/// Creates the table of this URL's store or brings it up to date, and opens the store. Many processes may do so
/// at once. Stores that need no table are only opened.
///
/// # Errors
///
/// As [`connect`], or if the URL's user may not change the schema.
pub async fn migrate(url: &str) -> Result<AnyStore, ConnectError> {
    ConnectOptions::new().migrate(true).connect(url).await
}

/// How the store of a URL is opened.
///
/// ```no_run
/// use std::time::Duration;
///
/// use idempotent_runtime::store::ConnectOptions;
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// // The database may still be starting, as in one deployment with the service.
/// let options = ConnectOptions::new().migrate(true).retry_for(Duration::from_secs(30));
/// let store = options.connect("postgres://app@db/app").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "call `connect(url)` to open the store"]
pub struct ConnectOptions {
    migrate: bool,
    as_it_is: bool,
    retry_for: Duration,
    accepted: Accepted,
}

impl ConnectOptions {
    /// As [`connect`] does it: the table must exist, and one attempt is made.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether to create the table, or bring it up to date, as [`migrate`] does. Default: no.
    pub fn migrate(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }

    /// Leaves the table as it is, also that of an SQLite file, which is otherwise brought up to date by every process that
    /// opens it: for tools beside a service, which may be older than they are. Wins over [`migrate`](Self::migrate).
    /// Default: no.
    pub fn as_it_is(mut self, yes: bool) -> Self {
        self.as_it_is = yes;
        self
    }

    /// For how long to try again while the server cannot be reached: nobody listens there yet, or it is starting up or
    /// loading its data. Other errors are returned at once. Default: zero, one attempt.
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Accepts a server or file with this weakness, and with no other; may be called several times. One that the store of
    /// the URL cannot have changes nothing. By default, a server with one is refused, or warned of: see [`Weakness`].
    ///
    /// **This weakens the promise**: after a crash of the server, a retry may execute a second time.
    pub fn accept(mut self, weakness: Weakness) -> Self {
        self.accepted.accept(weakness);
        self
    }

    /// Accepts a server that does not report all settings on which its durability depends, with a warning in the log. It
    /// accepts no weakness that is found. Default: such a server is refused.
    pub fn accept_unverified(mut self) -> Self {
        self.accepted.unverified = true;
        self
    }

    /// Opens the store of this URL.
    ///
    /// # Errors
    ///
    /// As [`connect`] and [`migrate`]: the last error, when the time for further attempts is over.
    ///
    /// # Cancellation
    ///
    /// Dropping the future ends the attempt; nothing remains but a table that was created.
    pub async fn connect(self, url: &str) -> Result<AnyStore, ConnectError> {
        let url = normal_form(url);
        let tables = match self {
            Self { as_it_is: true, .. } => Tables::AsTheyAre,
            Self { migrate: true, .. } => Tables::Migrate,
            _ => Tables::MustExist,
        };
        let since = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let error = match open(&url, tables, self.accepted).await {
                Ok(store) => return Ok(store),
                Err(error) => error,
            };
            let left = self.retry_for.saturating_sub(since.elapsed());
            if left.is_zero() || !error.may_pass() {
                return Err(error);
            }
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the store cannot be reached yet; trying again"
            );
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
}

/// The URL without white space around it and with its scheme in lower case (RFC 3986, section 3.1).
fn normal_form(url: &str) -> String {
    let url = url.trim();
    match url.split_once(':') {
        Some((scheme, rest)) => format!("{}:{rest}", scheme.to_ascii_lowercase()),
        None => url.to_owned(),
    }
}

/// What to do about a database's table.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "sql"), allow(dead_code))]
enum Tables {
    /// Nothing is changed, in a file neither.
    AsTheyAre,
    /// A server's table is not changed.
    MustExist,
    Migrate,
}

/// The kinds of stores that schemes name.
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
        // The Redis store itself tells `redis+sentinel` and the like apart. No other store has such variants.
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

    /// Whether a URL of this kind names a host.
    fn is_server(self) -> bool {
        matches!(self, Self::Redis | Self::Postgres | Self::MySql)
    }

    /// A URL of this kind.
    fn form(self) -> &'static str {
        match self {
            Self::Memory => "memory:",
            Self::Redis => "redis://host:6379",
            Self::Postgres => "postgres://user:password@host/database",
            Self::MySql => "mysql://user:password@host/database",
            Self::Sqlite => "sqlite://path/to/file.db",
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
#[cfg_attr(not(feature = "sql"), allow(unused_variables))]
async fn open(url: &str, tables: Tables, accepted: Accepted) -> Result<AnyStore, ConnectError> {
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    let Some(kind) = Kind::of(scheme) else {
        return Err(match Kind::of(&url.to_ascii_lowercase()) {
            Some(kind) => ConnectError::NotAUrl { write: kind.form() },
            None => ConnectError::UnknownScheme {
                scheme: printable(scheme),
            },
        });
    };
    // Its parser would connect to a server of its own choice: to this host, or to a socket.
    if kind.is_server() && !rest.starts_with("//") {
        return Err(ConnectError::NoHost { write: kind.form() });
    }
    match kind {
        #[cfg(feature = "memory")]
        Kind::Memory => Ok(AnyStore::new(super::memory::MemoryStore::new())),
        #[cfg(feature = "redis")]
        Kind::Redis => {
            let builder = super::redis::RedisStore::builder(url).accept_all(accepted);
            let store = builder.connect().await;
            store.map(AnyStore::new).map_err(ConnectError::Redis)
        }
        #[cfg(feature = "postgres")]
        Kind::Postgres => {
            let builder = super::sql::postgres::PostgresStore::builder();
            let store = builder
                .accept_all(accepted)
                .migrate(tables == Tables::Migrate)
                .connect(url)
                .await;
            Ok(AnyStore::new(store?))
        }
        #[cfg(feature = "mysql")]
        Kind::MySql => {
            let builder = super::sql::mysql::MySqlStore::builder();
            let store = builder
                .accept_all(accepted)
                .migrate(tables == Tables::Migrate)
                .connect(url)
                .await;
            Ok(AnyStore::new(store?))
        }
        #[cfg(feature = "sqlite")]
        Kind::Sqlite => {
            let builder = super::sql::sqlite::SqliteStore::builder();
            let store = builder
                .accept_all(accepted)
                .migrate(tables != Tables::AsTheyAre)
                .connect(url)
                .await;
            Ok(AnyStore::new(store?))
        }
        // Unreachable if all stores are compiled in.
        #[allow(unreachable_patterns)]
        missing => Err(ConnectError::MissingFeature {
            scheme: scheme.into(),
            feature: missing.feature(),
        }),
    }
}

/// The scheme for a message, or nothing if it does not look like one: in a URL without a scheme, a user name and
/// a password may stand before the first `:`.
fn printable(scheme: &str) -> Box<str> {
    let is_scheme = scheme.len() <= 32
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if is_scheme { scheme.into() } else { "".into() }
}

impl AnyStore {
    /// Erases the type of this store.
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

    fn try_acquire(&self, claim: &Claim) -> Option<Result<Acquisition, StoreError>> {
        self.0.try_acquire(claim)
    }

    fn try_complete(&self, held: &Held, outcome: &Outcome) -> Option<Result<Write, StoreError>> {
        self.0.try_complete(held, outcome)
    }

    fn attach(&self, wake: Wake) {
        self.0.attach(wake);
    }

    fn inspectable(&self) -> Option<&dyn Inspectable> {
        self.0.inspectable()
    }

    fn step_log(&self) -> Option<&dyn StepLog> {
        self.0.step_log()
    }

    fn outbox(&self) -> Option<&dyn OutboxStore> {
        self.0.outbox()
    }

    fn administrable(&self) -> Option<&dyn Administrable> {
        self.0.administrable()
    }

    fn transactions(&self) -> Option<&dyn Transactions> {
        self.0.transactions()
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyStore").field(&self.0.name()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: ConnectOptions, url: &str) -> ConnectError {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime
            .block_on(options.connect(url))
            .expect_err("no store")
    }

    fn connect_error(url: &str) -> String {
        refused(ConnectOptions::new(), url).to_string()
    }

    #[test]
    fn an_unknown_scheme_is_answered_with_the_known_ones() {
        for url in [
            "",
            "records.db",
            "http://example.com",
            "Memories:",
            "memory+sentinel://host",
            "postgres+tls://host",
        ] {
            let message = connect_error(url);
            assert!(
                message.starts_with("no store has the scheme"),
                "{url}: {message}"
            );
            assert!(message.contains("sqlite://"), "{message}");
        }
    }

    #[test]
    fn the_name_of_a_store_is_answered_with_its_url() {
        for (name, write) in [
            ("memory", "`memory:`"),
            ("Memory ", "`memory:`"),
            ("redis", "`redis://host:6379`"),
            ("postgresql", "`postgres://"),
            ("sqlite", "`sqlite://path/to/file.db`"),
        ] {
            let message = connect_error(name);
            assert!(message.contains(write), "{name}: {message}");
        }
    }

    #[test]
    fn a_url_without_its_slashes_is_answered_with_the_right_form() {
        for (url, form) in [
            ("postgres:app@localhost/app", "`postgres://"),
            ("postgresql:/localhost/app", "`postgres://"),
            ("mysql:app:hunter2@localhost/app", "`mysql://"),
            ("MariaDB:localhost", "`mysql://"),
            ("redis:localhost:6379", "`redis://"),
            ("rediss:/localhost", "`redis://"),
            ("redis+sentinel:localhost/main", "`redis://"),
            ("postgres:", "`postgres://"),
        ] {
            let message = connect_error(url);
            assert!(
                message.starts_with("the URL names no host"),
                "{url}: {message}"
            );
            assert!(message.contains(form), "{url}: {message}");
            assert!(!message.contains("hunter2"));
        }
    }

    /// Counts the attempts at a server that closes every connection at once, as one behind a proxy does that starts.
    #[cfg(feature = "postgres")]
    fn attempts(retry_for: Duration) -> (usize, ConnectError) {
        use std::sync::atomic::{AtomicUsize, Ordering};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!(
            "postgres://app@{}/app",
            listener.local_addr().expect("bound")
        );
        let seen = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&seen);
        std::thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                counted.fetch_add(1, Ordering::SeqCst);
                drop(connection);
            }
        });
        let error = refused(ConnectOptions::new().retry_for(retry_for), &url);
        (seen.load(Ordering::SeqCst), error)
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn a_server_that_cannot_be_reached_is_tried_again_for_the_chosen_time() {
        let (once, error) = attempts(Duration::ZERO);
        assert!(
            error.to_string().contains("could not be reached"),
            "{error}"
        );
        let (often, error) = attempts(Duration::from_millis(400));
        assert!(
            error.to_string().contains("could not be reached"),
            "{error}"
        );
        assert!(
            often >= 2 * once && once >= 1,
            "{once} and {often} attempts"
        );
    }

    #[test]
    fn what_no_time_mends_is_not_tried_again() {
        let since = Instant::now();
        refused(
            ConnectOptions::new().retry_for(Duration::from_secs(600)),
            "http://example.com",
        );
        assert!(since.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_message_contains_no_password() {
        assert!(!connect_error("app hunter2@db:5432/x").contains("hunter2"));
    }

    #[cfg(not(feature = "mysql"))]
    #[test]
    fn a_store_that_was_not_compiled_in_names_its_feature() {
        assert!(connect_error("mariadb://localhost/x").ends_with("with the feature `mysql`"));
    }

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn memory_urls_open_the_memory_store() {
        for url in ["memory:", "memory://", "Memory:", " MEMORY: \n"] {
            let store = connect(url).await.expect("a store");
            assert_eq!(Store::name(&store), "memory");
        }
    }
}
