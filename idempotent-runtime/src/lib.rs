//! Idempotency keys for HTTP handlers: the effect happens at most once per key, and every retry gets the same
//! answer.
//!
//! A client sends `Idempotency-Key: <unique>` with a request, and the same key again when it retries, because the
//! connection broke or the server restarted. The first request executes; the others get its stored response.
//!
//! ```
//! use axum::{Json, Router, http::StatusCode, routing::post};
//! use idempotent_runtime::idempotent;
//! use serde_json::{Value, json};
//!
//! #[idempotent(ttl = "24h", wait = true)]
//! async fn pay(Json(order): Json<Value>) -> (StatusCode, Json<Value>) {
//!     // Charge the card: once per key, whatever clients, networks and servers do.
//!     (StatusCode::CREATED, Json(json!({ "paid": order["amount"] })))
//! }
//!
//! let app: Router = Router::new().route("/payments", post(pay));
//! ```
//!
//! # In production
//!
//! With no set-up the records are in the memory of the process. A service keeps them in a database, tells callers apart,
//! deletes what has expired, and ends in order:
//!
//! ```no_run
//! use axum::{Router, http::{StatusCode, request::Parts}, response::{IntoResponse, Response}, routing::post};
//! use idempotent_runtime::{Idempotency, Scope, idempotent, store, store::purger::Purger};
//!
//! #[idempotent(name = "pay", required)]
//! async fn pay() -> &'static str {
//!     "paid"
//! }
//!
//! async fn authenticate(parts: Parts) -> Result<(Parts, Scope), Response> { // first, on every request with a key
//!     let account: Option<String> = None; // ask your sessions: the account, not the token, which changes
//!     let account = account.ok_or_else(|| StatusCode::UNAUTHORIZED.into_response())?;
//!     Ok((parts, Scope::new(account)))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = store::migrate(&std::env::var("DATABASE_URL")?).await?; // makes the table; `connect` expects it
//!     let purger = Purger::builder().start(store.clone());
//!     let idempotency = Idempotency::builder().store(store).caller(authenticate).install()?; // for every route
//!     let app = Router::new().route("/payments", post(pay));
//!     let listener = tokio::net::TcpListener::bind("0.0.0.0:8000").await?;
//!     let stop = async { drop(tokio::signal::ctrl_c().await) };
//!     axum::serve(listener, app).with_graceful_shutdown(stop).await?; // first the server, then the engine:
//!     let report = idempotency.shutdown(std::time::Duration::from_secs(30)).await; // executions that lost their client
//!     println!("{} drained, {} unknown, {} purged", report.drained, report.unknown, purger.stop().await);
//!     Ok(())
//! }
//! ```
//!
//! # What is promised
//!
//! | guarantee | how a route asks for it | a crash in the middle of the handler |
//! |---|---|---|
//! | at most once | `#[idempotent]` | the outcome is unknown and retries get `outcome_unknown`, until the execution completes late, an operator resolves the record, or it expires. The handler is not started again |
//! | at least once, single outcome | `on_crash = "retry"` | the next retry executes again as attempt n+1; only one outcome is ever stored or shown |
//! | exactly-once effect | [`transaction`](macro@idempotent#transaction) | rows and record are committed together or not at all, so the next retry executes |
//! | what a function finds out | `on_crash = path` | the function answers: completed, not executed, or still unknown |
//!
//! # What is not
//!
//! - A library cannot undo effects outside of the handler's process. `at most once` means that the handler is not
//!   *started* twice; what it did before a crash is for the recovery function, or a person, to find out. Pass
//!   [`Execution::downstream_key`] on, so that the next service can be asked.
//! - A replay runs neither the handler nor its extractors: **where they alone authenticate, a revoked token still gets
//!   its stored answers**, unless the route has a [`caller`](macro@idempotent#caller). A
//!   [scope by a header](scope::header) authenticates nobody. See [whose key it is](guide::callers).
//! - Without a caller and a scope, callers are told apart by their [credentials](scope::Credentials) alone.
//! - A record lives for its ttl. After that the key is free, and the same request executes again.
//! - [`MemoryStore`] protects one process for as long as it runs.
//! - A request without a key runs unprotected, unless the route says `required`.
//!
//! # Where to go from here
//!
//! - [`#[idempotent]`](macro@idempotent): every option with an example.
//! - [`Idempotency::builder`]: the engine's store, scope, default policy and profile.
//! - [`IdempotencyLayer`]: the same for any tower service, without the attribute.
//! - [`Transaction`]: rows and record in one database transaction. [`outbox`]: messages that commit with them. [`Execution`]: what a handler can ask; [`step`]: calls of
//!   other services that a next attempt does not repeat; [`Retention`]: what it can decide.
//! - [`once`]: the same without HTTP, for message consumers, webhooks and scheduled jobs.
//! - [`store`]: the stores by URL, and the contract for authors of stores.
//! - [`guide::clients`]: how clients should retry. [`guide::answers`]: what they get, and when.
//! - [`guide::callers`]: who calls, and who may see a stored answer. [`guide::operations`]: running a service. [`guide::layers`]: which layer goes where. [`guide::grpc`]: unary gRPC calls. [`guide::money`]: moving money
//!   safely. [`guide::effects`]: mails and calls of other services. [`guide::unknown`]: when something is unknown. [`guide::regions`]: beyond one region and one vendor.
//! - [`guide::comparison`]: this library beside others. [`guide::coming_from`]: switching to it without executing twice.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `macros` | yes | `#[idempotent]`, with the feature of an adapter: `axum` |
//! | `axum` | yes | extractors, route templates, original paths; what the attribute expands to |
//! | `memory` | yes | [`MemoryStore`] |
//! | `metrics` | | counters, histograms and gauges through the [`metrics`](https://docs.rs/metrics) facade |
//! | `redis`, `redis-tls` | | [`RedisStore`]: Redis and Valkey, single, Sentinel or Cluster |
//! | `postgres`, `mysql`, `sqlite`, `sql-tls` | | [`PostgresStore`], [`MySqlStore`], [`SqliteStore`] |
//! | `cached` | | [`Cached`]: outcomes in process memory, in front of any store |
//! | `typed-routing` | | annotated handlers in the typed routes of `axum-extra` |
//! | `compression` | | [`Builder::compress_from`]: LZ4 for large responses |
//! | `encryption` | | [`Builder::encrypt`]: XChaCha20-Poly1305 at rest, under a keyring that can be rotated |
//! | `admin` | | [`admin`]: a page and JSON to look at records and resolve them, for an axum router. `form_urlencoded`, `humantime` |
//! | `view` | | [`view`]: what the command line shows of a record, as serializable types |
//! | `client` | | [`client`]: one key over all attempts of a `reqwest` client. `reqwest` without TLS, `reqwest-middleware`, `async-trait` |
//! | `grpc` | | [`IdempotencyLayer::grpc`]: unary gRPC calls. `base64` |
//! | `openapi` | | [`Idempotency::documentation`]: completes OpenAPI documents. No dependency |
//! | `utoipa5`, `utoipa6` | | the same as a `Modify` of utoipa 5 or 6: `utoipa`, `utoipa-gen` and `indexmap` |
//! | `conformance` | | the test suite that every [`Store`](store::Store) must pass |

// Some links lead to items of other features. CI checks them with all features.
#![cfg_attr(
    not(all(
        feature = "admin",
        feature = "axum",
        feature = "cached",
        feature = "client",
        feature = "compression",
        feature = "conformance",
        feature = "encryption",
        feature = "grpc",
        feature = "macros",
        feature = "memory",
        feature = "mysql",
        feature = "openapi",
        feature = "postgres",
        feature = "redis",
        feature = "sqlite",
        feature = "view"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]
// Without an adapter nothing calls what they share.
#![cfg_attr(all(feature = "handlers", not(feature = "axum")), allow(dead_code))]
// On docs.rs, which builds with nightly, each item says which feature it needs: since Rust 1.92 `doc_cfg` derives that
// from `#[cfg(…)]`. `handlers` and `sql` are left out, since the features of adapters and stores enable them.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(docsrs, doc(auto_cfg(hide(feature = "handlers", feature = "sql"))))]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "axum")]
mod axum;
#[cfg(feature = "client")]
pub mod client;
pub mod guide;
pub mod layer;
pub mod once;
#[cfg(feature = "openapi")]
pub mod openapi;
pub mod scope;
pub mod store;
#[cfg(feature = "view")]
pub mod view;

#[cfg(feature = "handlers")]
mod expansion {
    pub mod private;
}
// Hidden by its export alone: types of a module that is itself hidden have long names in the compiler's messages.
#[cfg(feature = "handlers")]
#[doc(hidden)]
pub use expansion::private as __private;

mod backoff;
mod body;
mod boxes;
mod caller;
mod catch_unwind;
mod credentials;
mod digest;
mod endpoint;
mod engine;
mod execution;
mod fingerprint;
mod header_sketch;
mod hex;
mod key;
mod keyed_hash;
mod names;
mod observe;
pub mod outbox;
mod policy;
mod problem;
mod response;
mod route;
pub mod step;
mod sync;
#[cfg(feature = "sql")]
mod transaction;

#[cfg(feature = "axum")]
pub use axum::ExecutionRejection;
#[cfg(all(feature = "axum", feature = "sql"))]
pub use axum::TransactionRejection;
pub use caller::Caller;
#[cfg(feature = "handlers")]
pub use engine::InstallError;
pub use engine::{
    BuildError, Builder, Idempotency, OnStoreError, Operator, OperatorError, Profile, Resolution,
    ResolveError, Retention, Shutdown,
};
pub use execution::{Crash, Execution, Recovery};
pub use fingerprint::{Fingerprint, FingerprintRule, InvalidPointer, JsonPointer};
#[cfg(all(feature = "macros", feature = "axum"))]
pub use idempotent_macros::idempotent;
pub use key::{IdempotencyKey, KeyError, KeyRules};
#[doc(inline)]
pub use layer::IdempotencyLayer;
#[cfg(feature = "metrics")]
pub use observe::buckets;
pub use once::{NotDone, Once, OnceError, OnceProblem};
pub use policy::{Cache, OnCrash, Policy, RecoverFn};
pub use problem::ProblemCode;
#[cfg(feature = "encryption")]
pub use response::Keyring;
pub use response::{CorruptResponse, NotStorable, StoredResponse};
#[doc(inline)]
pub use scope::{Scope, StoreKey};
#[doc(inline)]
pub use step::{Step, StepError, StepFault, StepFaultKind};
#[cfg(feature = "cached")]
#[doc(inline)]
pub use store::cached::Cached;
#[cfg(feature = "memory")]
#[doc(inline)]
pub use store::memory::MemoryStore;
#[cfg(feature = "redis")]
#[doc(inline)]
pub use store::redis::RedisStore;
#[cfg(feature = "mysql")]
#[doc(inline)]
pub use store::sql::mysql::MySqlStore;
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use store::sql::postgres::PostgresStore;
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use store::sql::sqlite::SqliteStore;
#[cfg(feature = "sql")]
pub use transaction::{Transaction, TransactionDatabase};
