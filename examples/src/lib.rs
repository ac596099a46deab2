//! Example programs. Each `.rs` file beside this package's `Cargo.toml` is one:
//!
//! | run | what it shows |
//! |---|---|
//! | `cargo run --example quickstart` | the smallest useful program: one attribute, nothing else |
//! | `cargo run --example payments` | the demo: a service to explore with `curl`, with settings from the environment |
//! | `bash examples/try.sh` | a script that tests the demo and prints PASS or FAIL |
//! | `cargo run --example layer` | `IdempotencyLayer` around a router, one namespace of keys per tenant |
//! | `cargo run --example recovery` | finding out what became of an execution that a crash cut off |
//! | `cargo run --example transfer` | money between accounts, in a transaction that commits with its record |
//! | `cargo run --example checkout` | reservation, charge, order and mail, each once: steps, a transaction and the outbox |
//! | `bash examples/try_checkout.sh` | a script that tests the checkout while its shop, provider and mail server fail |
//! | `cargo run --example custom_store` | a store of your own, under the published conformance suite |
//!
//! The library part of the package is empty.
