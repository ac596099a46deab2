//! The handler's transaction on each database: what is committed, what is stored, and what the client hears.
//!
//! - `outcomes`: which responses commit, and what is replayed.
//! - `locked`: duplicates that meet the locks of a transaction.
//! - `misuse`: handlers that end, keep or lose their transaction.
//! - `doubt`: a COMMIT whose request or reply is lost, held or late.
//! - `takeovers`: executions that crash, are stopped or fenced out.
//! - `steps`: what a handler does elsewhere, beside its transaction.
//! - `tables`: where the record is, and whether it has room.
//! - `outbox`: messages that are committed with a record, and their delivery.
//! - `pools`: handlers that hold connections, and pools that are full.
//! - `database` and `app` are what these tests are written with, `commits` is a proxy that treats COMMIT by itself.

mod app;
mod commits;
mod database;
mod doubt;
mod locked;
mod misuse;
mod outbox;
mod outcomes;
mod pools;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod steps;
mod tables;
mod takeovers;
