//! What the SQL stores on a server share: each case runs on PostgreSQL and on MariaDB.

use std::sync::atomic::{AtomicU32, Ordering};

use idempotent_runtime::store::sql::TableName;

mod connect;
mod faults;
mod replaced;
pub(crate) mod server;
mod sessions;
#[cfg(target_os = "linux")]
mod stalled;
mod tables;
mod versions;

/// A name that no other table has.
pub(crate) fn new_table() -> TableName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
    name.parse().expect("a name")
}
