//! What a protected service does, as scenarios: given, when, then. `tests/README.md` says which scenario tests which
//! rule of DESIGN.md.
//!
//! Most scenarios move tokio's paused clock and hold handlers at a gate. Where the connection matters, they send
//! requests to a real server over real sockets. None sleeps and hopes that something has happened by then.

#[path = "../support/proxy.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod proxy;
#[path = "../support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod servers;
#[path = "../support/mod.rs"]
mod support;

mod admin;
mod alerts;
mod answers;
mod at_once;
mod at_rest;
mod attribute;
mod blocked_threads;
mod body_limits;
mod callers;
mod chaos;
mod concurrency;
mod crashes;
mod credentials;
mod deploys;
mod disconnects;
mod doubt;
mod fingerprints;
mod full_stores;
mod grpc;
mod grpc_calls;
mod identities;
mod inner_engines;
mod keys;
mod late_replies;
mod leases;
mod lengths;
mod limits;
mod lost_replies;
mod malformed_requests;
mod metrics;
mod mismatches;
mod nested_requests;
mod observability;
mod odd_requests;
mod once;
mod operators;
mod outcomes;
mod over_each_protocol;
mod panics;
mod problems;
mod recovery;
mod recovery_arguments;
mod replays;
mod request_bodies;
mod response_ends;
mod responses;
mod room;
mod rotation;
mod route_functions;
mod routes;
mod runtimes;
mod scopes;
mod setup;
mod shutdown_races;
mod shutdowns;
mod stacks;
mod steps;
mod store_faults;
mod stored_formats;
mod through_a_proxy;
mod waiting;
