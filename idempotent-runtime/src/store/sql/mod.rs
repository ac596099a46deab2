//! Records in an SQL database: PostgreSQL, MySQL and MariaDB, or an SQLite file.
//!
//! | store | feature | survives | clock |
//! |---|---|---|---|
//! | [`postgres::PostgresStore`] | `postgres` | a crash of the server, whatever it acknowledged | the server's `clock_timestamp()` |
//! | [`mysql::MySqlStore`] | `mysql` | the same, with `innodb_flush_log_at_trx_commit = 1` | the server's `utc_timestamp(6)` |
//! | [`sqlite::SqliteStore`] | `sqlite` | a crash of the process and of the machine | the machine's |
//!
//! They are one store, [`SqlStore`], over what differs between the databases: syntax, the statements that need it, error
//! numbers and session settings. What they share:
//!
//! 1. **The table.** [`TableName`] is its name. `migrate()` creates it or brings it up to date, and may run in many
//!    processes at once. Nothing else ever changes the schema: a store that does not find its table returns an
//!    error when it connects.
//! 2. **Round trips.** The first execution of a request costs two statements, acquire and complete; a replay costs
//!    one.
//! 3. **Cancellation.** An operation that is dropped half-way has happened or has not, or will. Its connection is closed
//!    instead of going back to the pool, once the server has answered or closed it, or after a minute. Until then it
//!    keeps its place: a server that stalls, behind a disk or a synchronous standby, gets no more connections than
//!    configured, and meanwhile operations that find no place fail in time. After a failover that closes no connection,
//!    that minute is the longest time until all places are free.
//! 4. **Another server.** Each new connection is asked whether its server is still the one of the start, by its identity and
//!    by when the table was made: another server is a warning in the log, another table or none an error. A server with a
//!    weakness that was not accepted is not used, and operations fail until that is mended. It costs one round trip for a
//!    connection. An application's pool makes its connections itself: there it is asked after a connection was lost, and
//!    once a minute, but only if [`check`](SqlStore::check) was called.
//! 5. **Connections.** No request holds one while it waits for another execution: a pool of one connection serves
//!    any number of duplicates.
//! 6. **Corrupt rows.** A row that this crate did not write is an error of kind
//!    [`Corrupt`](super::StoreErrorKind::Corrupt), never a panic and never an execution.
//! 7. **Operators.** What they did stands in a table of its own, named as the records' with `_audit` behind it: `migrate()`
//!    makes it, and nothing deletes from it.
//! 8. **Messages** of handlers' transactions stand in a table with `_outbox` behind its name, which `migrate()` makes too. A
//!    [relay](crate::outbox::Relay) deletes what was delivered and kept for long enough.
//! 9. **Purging.** A record says when to look at it, which is indexed, apart from when it expires, which is not: so a
//!    completion and a renewal change no index (in PostgreSQL they are HOT updates). The purge deletes what has expired and
//!    moves the rest on. A response that is kept for a shorter time than its route's ttl is absent in time, and deleted
//!    when the ttl has passed.
//! 10. **Versions.** The table has version 2. Processes of version 1 work on it too; [the guide](crate::guide::operations)
//!     has the order of a deploy. In records that they wrote, endpoint and times may be missing or those of an earlier
//!     record of the same key.
//!
//! A row holds the digest of scope and key, the digest of the request, and the response. The raw key is never
//! stored. The last eight bytes of the column `fingerprint` are the digest of the caller; there is no other column for it.

mod admin;
mod dialect;
mod error;
mod locked;
mod operations;
mod outbox;
mod probe;
mod purge;
mod retry;
mod row;
mod setup;
mod statement;
mod statements;
mod steps;
mod store;
mod table_name;
mod transaction;

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod pool;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod watch;

pub use error::ConnectError;
pub(crate) use outbox::NewMessage;
pub use store::{SqlStore, SqlStoreBuilder};
pub use table_name::{TableName, TableNameError};
pub(crate) use transaction::TypedTransaction;
