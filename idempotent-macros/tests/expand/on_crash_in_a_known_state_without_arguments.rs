#[idempotent(state = App, on_crash = find_out)]
async fn handler() {}
