//! Idempotency keys for HTTP handlers.

#[cfg(feature = "axum")]
mod axum;
pub mod layer;
pub mod scope;
pub mod store;

mod digest;
mod engine;
mod fingerprint;
mod key;
mod observe;
mod policy;
mod problem;
mod response;
mod route;
mod sync;

#[cfg(feature = "axum")]
pub use axum::ExecutionRejection;
#[cfg(feature = "axum")]
#[doc(hidden)]
pub use axum::private as __private;
pub use engine::{
    BuildError, Builder, Crash, Execution, Idempotency, OnStoreError, Profile, Recovery,
    Resolution, ResolveError, ResponseBody, Retention, Shutdown,
};
pub use fingerprint::{Fingerprint, FingerprintRule};
#[cfg(feature = "macros")]
pub use idempotent_macros::idempotent;
pub use key::{IdempotencyKey, KeyError, KeyRules};
pub use layer::IdempotencyLayer;
pub use policy::{Cache, OnCrash, Policy, RecoverFn};
pub use problem::ProblemCode;
pub use response::{CorruptResponse, NotStorable, StoredResponse};
pub use scope::{Scope, StoreKey};
#[cfg(feature = "memory")]
pub use store::memory::MemoryStore;
