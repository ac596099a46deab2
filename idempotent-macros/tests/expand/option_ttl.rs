#[idempotent(ttl = "1h30m")]
async fn handler(body: String) -> String {
    body
}
