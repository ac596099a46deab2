#[idempotent(wait = false)]
async fn handler(body: String) -> String {
    body
}
