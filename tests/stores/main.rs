//! Stores: the conformance suite, what it catches, and what only single stores promise.

mod broken;
mod cached;
mod chosen;
mod counting;
mod custom;
#[path = "../../examples/custom_store.rs"]
#[allow(dead_code, reason = "the example's own service is for its reader")]
mod custom_store;
#[cfg(target_os = "linux")]
mod leavings;
mod machine;
mod memory;
mod model;
mod mysql;
#[path = "../support/observe.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod observe;
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
mod redis;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
mod service;
mod sql_faults;
mod sql_server;
mod sql_sessions;
mod sql_setup;
mod sqlite;
mod toolbox;
mod waiting;
