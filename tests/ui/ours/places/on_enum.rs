use idempotent_runtime::idempotent;

#[idempotent]
enum Payment {
    Made,
}

fn main() {}
