//! Idempotency keys for HTTP handlers.

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

pub use engine::{
    BuildError, Builder, Crash, Execution, Idempotency, OnStoreError, Profile, Recovery,
    Resolution, ResolveError, ResponseBody, Retention, Shutdown,
};
pub use fingerprint::{Fingerprint, FingerprintRule};
pub use key::{IdempotencyKey, KeyError, KeyRules};
pub use layer::IdempotencyLayer;
pub use policy::{Cache, OnCrash, Policy, RecoverFn};
pub use problem::ProblemCode;
pub use response::{CorruptResponse, NotStorable, StoredResponse};
pub use scope::{Scope, StoreKey};
#[cfg(feature = "memory")]
pub use store::memory::MemoryStore;
