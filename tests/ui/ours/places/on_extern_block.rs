use idempotent_runtime::idempotent;

#[idempotent]
unsafe extern "C" {}

fn main() {}
