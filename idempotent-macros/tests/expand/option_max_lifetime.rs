#[idempotent(max_lifetime = "1h")]
async fn handler(body: String) -> String {
    body
}
