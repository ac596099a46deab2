//! Messages to a real server that are late, lost or doubled on their way (DESIGN.md, sections 4 and 9; invariants I2, I3,
//! I4, I10). Each case runs on Redis, PostgreSQL and MariaDB, behind a proxy that holds messages back, and its requests
//! come over real connections.
//!
//! - `place` is a store behind a proxy, and a process of the service on it.
//! - `acquires` are claims whose messages are late or lost, `last_writes` completions, releases and abandons, and
//!   `take_overs` those of crashed executions.
//! - `locked_file` is the same for SQLite: there another writer holds the messages back.

mod acquires;
mod last_writes;
mod locked_file;
mod place;
mod take_overs;
