#[idempotent]
async fn handler() -> ! {
    loop {}
}
