//! What the scenarios share: a clock that tests move, an app whose handler counts its effects, clients that
//! disconnect in every way, processes that crash, and a store that fails on command.

mod app;
mod backends;
mod bodies;
mod client;
mod disconnect;
mod faulty_store;
#[allow(dead_code, reason = "the soak uses more of it")]
mod gauges;
mod handler;
mod http;
mod http1;
mod http2;
mod observe;
mod process;
mod seen;
mod time;

pub(crate) use app::{Adapter, PAY, app_without_engine, two_engines, unprotected_app};
pub(crate) use backends::{Backend, FileBackend, MemoryBackend, PlantedRecord, hex, outcome};
pub(crate) use bodies::{Frames, endless, frames, stream};
pub(crate) use client::{Client, PROTOCOLS, Protocol};
pub(crate) use disconnect::{DISCONNECTS, Disconnect, send_and_disconnect};
pub(crate) use faulty_store::{Fault, FaultyStore, Operation};
pub(crate) use gauges::{detached, waiters};
pub(crate) use handler::{BoxFuture, CountingHandler};
pub(crate) use http::{TestRequest, TestResponse, poll_once, send, send_in_task};
pub(crate) use http1::{Conn, Server};
pub(crate) use http2::H2Conn;
pub(crate) use observe::{Log, Metrics};
pub(crate) use process::{Process, crash};
pub(crate) use seen::Seen;
pub(crate) use time::{
    advance, in_real_time, random_pause, run_ready_tasks, wait_until, with_each_adapter,
    with_paused_clock,
};
