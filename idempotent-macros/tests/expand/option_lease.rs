#[idempotent(lease = "10s")]
async fn handler(body: String) -> String {
    body
}
