// By name: trybuild allows it.
#![deny(dead_code)]

use idempotent_runtime::idempotent;

#[idempotent(inner = plain)]
async fn handler() {}

fn main() {}
