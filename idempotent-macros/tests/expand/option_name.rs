#[idempotent(name = "create-payment")]
async fn handler(body: String) -> String {
    body
}
