//! What scenarios are told with: a clock moved by hand, a shop whose till counts effects, clients that misbehave
//! on command, and stores that fail on command.

mod ask;
mod bodies;
mod http1;
mod http2;
mod observe;
mod shelf;
mod shop;
mod store;
mod till;
mod time;

pub(crate) use ask::{Answer, Ask, ask, asking, crash, poll_once};
pub(crate) use bodies::{Frames, endless, frames, stream};
pub(crate) use http1::{Conn, Server};
pub(crate) use http2::Conn2;
pub(crate) use observe::{Log, Metrics, detached, waiters};
pub(crate) use shelf::{InFile, InMemory, Planted, Shelf, outcome};
pub(crate) use shop::{Face, PAY, bare_attribute, plain};
pub(crate) use store::{Fault, Faulty, Verb};
pub(crate) use till::{BoxFuture, Till};
pub(crate) use time::{both, by_hand, moment, pass, real, settle, until};
