//! The engine: decides what happens with a request that carries a key, and makes it happen.
//!
//! It knows the [store's contract](crate::store) and plain HTTP types, no web framework and no database. This page is
//! its map; each folder has one of its own.
//!
//! # A request's way
//!
//! ```text
//! adapter            axum/run.rs or layer/: is the request covered? which route? which handler?
//! run                here: settings, span, and a future that outlives its client (detach.rs)
//! exchange/receive   parse the key -> room for an execution? -> read the body -> admit -> scope, fingerprint
//! exchange/mod       acquire
//! exchange/decide    what the store answered + what the route asks for -> the next step (pure)
//!   exchange/follow    another execution is in flight: wait in its queue (wait/), read, become the leader
//!   exchange/recover   an execution crashed: ask the route's function
//!   exchange/execute   run the handler
//! run/mod            the handler under its lease (run/lease) -> is the response stored? (run/cacheable)
//! run/commit         complete, release or abandon; run/recorder does it for streams
//! reply              problems, replays, the handler's own response
//! ```
//!
//! # The modules
//!
//! | group | modules |
//! |---|---|
//! | the request | `exchange/`, `reply`, `body/`, `handler` (what an adapter brings), `detach` (clients that leave) |
//! | the execution | `run/`: lease and heartbeat, commit, recorder, panics, what is stored |
//! | waiting | `wait/`: the queues of the duplicates; `exchange/follow` uses them |
//! | shared by all | `core/`: store client, registry of what is in flight, gauges, withdrawal of claims in doubt |
//! | set-up | `builder`, `profile`, `global` (the engine of the process) |
//! | the end | `shutdown` |
//! | operators | `admin`: inspect, resolve, purge |
//!
//! # In which order a request is checked
//!
//! Covered at all · key · room for one more detached execution · size of the body · room again, and no shutdown ·
//! acquire: mismatch before conflict. Nothing before the acquire touches the store.
//!
//! # Where limits and times live
//!
//! | limit or time | set in | enforced in |
//! |---|---|---|
//! | `ttl`, `lease`, `max_lifetime`, `wait_timeout`, `max_body`, `max_response` | `policy` (defaults in `Settings::resolve`) | `run/lease`, `exchange/follow`, `exchange/receive`, `run/mod`, `run/recorder` |
//! | store time-out | `builder` | `core/store_client` |
//! | `max_detached` | `builder` | `core/mod` (`has_room`), asked in `exchange/receive` and `exchange/follow` |
//! | waiters per key and per process | `builder` | `wait/mod` |
//! | headers of a stored response | `builder` | `response::ResponseLimits`, through `run/commit` |
//! | length of a key | `builder` | `key`, through `core/mod` (`settings`) |
//! | pauses between attempts and polls | `crate::backoff` | who waits: `wait/mod`, `exchange/execute`, `run/commit`, `core/withdraw` |
//! | retry budget of a last write (three store time-outs), persistence of a late outcome | `run/commit` | there |
//! | retry budget of a withdrawal | `core/withdraw` | there |
//!
//! # Who writes to the store
//!
//! The claim in `exchange/` (`mod`, `follow`, `recover`); the renewals in `run/lease`; the last write in `run/commit`. Besides
//! these: `core/withdraw` (a claim in doubt), `shutdown` (what is in flight at the deadline), `admin` (an operator). All go
//! through `core/store_client`.
//!
//! # To change …
//!
//! | this | touch these |
//! |---|---|
//! | a problem code, its status or its text | `crate::problem`; the metric label follows the code |
//! | which header carries the key | `crate::policy` (`key_header`); `crate::names::KeyHeader` is the only place that reads it |
//! | which responses are stored | `run/cacheable` |
//! | which headers are stored | `crate::response` (`filter`) |
//! | what a duplicate gets | `exchange/decide` |
//! | a store operation | `crate::store` (trait, `erased`), `core/store_client`, every store, the conformance suite |
//! | an option of the attribute | the macro crate's option table, `crate::policy` |
//! | a metric or span field | `crate::observe` |
//! | an engine-wide setting | `builder`, `core/mod` |

use std::sync::Arc;

use http::{HeaderMap, Request};
use http_body::Body;
use tracing::Instrument;

use crate::{observe, policy::Policy};

mod admin;
mod body;
mod builder;
mod core;
mod detach;
mod exchange;
#[cfg(feature = "axum")]
mod global;
mod handler;
mod profile;
mod reply;
mod run;
mod shutdown;
mod wait;

pub use admin::{Resolution, ResolveError};
#[cfg(feature = "axum")]
pub(crate) use body::BodyKind;
pub use body::ResponseBody;
pub use builder::{BuildError, Builder};
pub use core::{Idempotency, on_store_error::OnStoreError};
use detach::DetachState;
pub(crate) use detach::Detachable;
use exchange::Exchange;
pub(crate) use handler::{BoxError, BoxFuture, Handler, HandlerResult, Route};
pub use profile::Profile;
pub(crate) use reply::Reply;
pub use run::Retention;
pub use shutdown::Shutdown;

impl Idempotency {
    /// Whether the engine handles this request: it has a key, or the route requires one.
    pub(crate) fn covers(&self, policy: &Policy, headers: &HeaderMap) -> bool {
        self.0.covers(policy, headers)
    }

    /// Serves one request that the engine [covers](Self::covers).
    pub(crate) fn run<B, H>(
        self,
        policy: &Policy,
        route: Route,
        request: Request<B>,
        handler: H,
    ) -> Detachable<Reply<H::Body>>
    where
        B: Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
        H: Handler,
    {
        let state = Arc::new(DetachState::default());
        let span = observe::span(route.label());
        let detached = self.0.detached.clone();
        let exchange = Box::new(Exchange {
            settings: self.0.settings(policy),
            core: self.0,
            route,
            detach: Arc::clone(&state),
            admission: None,
        });
        let served = exchange.serve(request, handler).instrument(span);
        Detachable::new(state, detached, served)
    }
}
