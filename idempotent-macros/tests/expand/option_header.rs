#[idempotent(header = "X-Request-Key")]
async fn handler(body: String) -> String {
    body
}
