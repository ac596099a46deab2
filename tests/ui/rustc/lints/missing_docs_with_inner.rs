//! Documented.

#![deny(missing_docs)]

use idempotent_runtime::idempotent;

#[idempotent(inner = plain)]
pub async fn handler() {}

fn main() {}
