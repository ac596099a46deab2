#[idempotent]
async fn handler() {}
