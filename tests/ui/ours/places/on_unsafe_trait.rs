use idempotent_runtime::idempotent;

#[idempotent]
pub unsafe trait Handler {}

fn main() {}
