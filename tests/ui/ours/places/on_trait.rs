use idempotent_runtime::idempotent;

#[idempotent]
pub trait Handler {}

fn main() {}
