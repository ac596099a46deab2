#[idempotent(strict)]
async fn handler(body: String) -> String {
    body
}
