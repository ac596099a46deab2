use idempotent_runtime::idempotent;

#[idempotent]
mod handlers {}

fn main() {}
