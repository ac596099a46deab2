#[idempotent(inner = plain)]
async fn handler(body: String) -> String {
    body
}
