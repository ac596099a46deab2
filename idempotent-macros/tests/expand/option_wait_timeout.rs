#[idempotent(wait_timeout = "5s")]
async fn handler(body: String) -> String {
    body
}
