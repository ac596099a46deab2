//! What the soak shares with the scenarios: clients that disconnect in every way, processes that crash, and a store that
//! fails on command.

#[path = "../support/app.rs"]
mod app;
#[path = "../support/faulty_store.rs"]
mod faulty_store;
#[path = "../support/gauges.rs"]
mod gauges;
#[path = "../support/handler.rs"]
mod handler;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/http1.rs"]
mod http1;
#[path = "../support/http2.rs"]
mod http2;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/seen.rs"]
mod seen;

pub(crate) use app::{Adapter, PAY, unprotected_app};
pub(crate) use faulty_store::{Fault, FaultyStore, Operation};
pub(crate) use gauges::{detached, in_flight, waiters, withdrawals};
pub(crate) use handler::CountingHandler;
pub(crate) use http::{TestRequest, TestResponse, poll_once};
pub(crate) use http1::{Conn, Server};
pub(crate) use http2::{H2Conn, H2Stream};
pub(crate) use process::Process;
use seen::Seen;
