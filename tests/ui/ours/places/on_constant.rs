use idempotent_runtime::idempotent;

#[idempotent]
const HANDLER: u32 = 1;

fn main() {}
