use idempotent_runtime::idempotent;

#[idempotent]
union Payment {
    made: u32,
}

fn main() {}
