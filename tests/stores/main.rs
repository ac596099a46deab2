//! Stores: the conformance suite, what it catches, and what only single stores promise.
//!
//! - `memory`, `redis`, `postgres`, `mysql`, `sqlite`, `cached` and `custom` run the conformance suite on one store each,
//!   and test what only that store promises; `sql` tests what the SQL stores on a server share.
//! - `model` plays random histories to each store and compares its answers with a model of the contract.
//! - `broken` has stores with one flaw each, which the suite and the model must find.
//! - `waiting` has duplicates that wait in the same engine, in another one and in another process.
//! - `crashed_steps` has steps of handlers whose process is aborted.
//! - `connect_by_url` opens stores by their URL, and `server_cleanup` tests the servers of these tests themselves.
//! - `toolbox`, `service` and `counting` are what these tests are written with.

mod broken;
mod cached;
mod connect_by_url;
mod counting;
mod crashed_steps;
mod custom;
#[path = "../../examples/custom_store.rs"]
#[allow(dead_code, reason = "the example's own service is for its reader")]
mod custom_store;
#[path = "../support/gauges.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod gauges;
mod memory;
mod model;
mod mysql;
#[path = "../support/observe.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod observe;
mod postgres;
#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod proxy;
mod redis;
#[cfg(target_os = "linux")]
mod server_cleanup;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod service;
mod sql;
mod sqlite;
mod toolbox;
mod waiting;
