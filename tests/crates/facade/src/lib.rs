//! A crate that re-exports the runtime under a name of its own.

pub use idempotent_runtime as idempotency;
