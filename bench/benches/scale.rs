//! The run time of a request with a million records in the store, compared with a thousand.

fn main() {
    idempotent_bench::scale::run("system allocator");
}
