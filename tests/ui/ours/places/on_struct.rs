use idempotent_runtime::idempotent;

#[idempotent]
struct Handler;

fn main() {}
