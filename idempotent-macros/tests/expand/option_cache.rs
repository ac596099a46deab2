#[idempotent(cache = "success")]
async fn handler(body: String) -> String {
    body
}
