#[idempotent(required)]
async fn handler(body: String) -> String {
    body
}
