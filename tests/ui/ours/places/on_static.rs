use idempotent_runtime::idempotent;

#[idempotent]
static PAYMENTS: u32 = 0;

fn main() {}
