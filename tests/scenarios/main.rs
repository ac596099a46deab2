//! What a service under the contract does, told as scenarios: given, when, then.
//!
//! Time is moved by hand and handlers are held at gates; nothing here sleeps and hopes. Where the connection
//! matters, a real server is asked over real sockets.

#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod at_rest;
mod attribute;
mod chaos;
mod concurrency;
mod crashes;
mod disconnects;
mod full_stores;
mod keys;
mod late_replies;
mod leases;
mod limits;
mod malformed_requests;
mod observability;
mod outcomes;
mod problems;
mod replays;
mod request_bodies;
mod routes;
mod setup;
mod shutdowns;
mod store_faults;
mod stored_formats;
mod streams;
mod waiting;
