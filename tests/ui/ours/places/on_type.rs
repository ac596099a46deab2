use idempotent_runtime::idempotent;

#[idempotent]
type Payment = u32;

fn main() {}
