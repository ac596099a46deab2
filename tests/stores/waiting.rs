//! Duplicates that wait for another request's outcome: how many connections they take, and how soon they have it.

use std::time::Duration;

mod across_engines;
mod across_processes;
mod one_connection;

/// Within this a duplicate has its answer where the store notifies.
pub(crate) const NOTIFIED: Duration = Duration::from_millis(50);
/// Within this a duplicate has its answer where it polls: the longest pause between two polls.
pub(crate) const POLLED: Duration = Duration::from_millis(500);
