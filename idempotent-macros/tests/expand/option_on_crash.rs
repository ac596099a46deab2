#[idempotent(on_crash = find_out)]
async fn handler(body: String) -> String {
    body
}
