use idempotent_runtime::idempotent;

#[idempotent]
unsafe extern "C" fn handler(n: u32, ...) {}

fn main() {}
