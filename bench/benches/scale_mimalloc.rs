//! The same as `scale` with another allocator, so that no result is a peculiarity of the system's.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    idempotent_bench::scale::run("mimalloc");
}
