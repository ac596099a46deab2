//! Documented.

#![deny(missing_docs)]

use idempotent_runtime::idempotent;

#[idempotent]
pub async fn handler() {}

/// Documented.
pub fn other() {}

fn main() {}
