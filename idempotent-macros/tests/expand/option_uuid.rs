#[idempotent(uuid)]
async fn handler(body: String) -> String {
    body
}
