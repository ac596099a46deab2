//! How many of something an engine has now, as its debug output shows it.

use idempotent_runtime::Idempotency;

/// How many keys this engine executes, or has an outcome of to store.
pub(crate) fn in_flight(engine: &Idempotency) -> usize {
    field(engine, "in_flight: ")
}

/// How many duplicates wait in this engine.
pub(crate) fn waiters(engine: &Idempotency) -> usize {
    field(engine, "waiters: ")
}

/// How many executions of this engine are detached.
pub(crate) fn detached(engine: &Idempotency) -> usize {
    field(engine, "detached: ")
}

/// How many claims in doubt this engine withdraws.
pub(crate) fn withdrawals(engine: &Idempotency) -> usize {
    field(engine, "withdrawals: ")
}

fn field(engine: &Idempotency, name: &str) -> usize {
    let debug = format!("{engine:?}");
    let value = debug
        .split(name)
        .nth(1)
        .expect("a field of the engine's debug output");
    let digits = value.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap()
}
