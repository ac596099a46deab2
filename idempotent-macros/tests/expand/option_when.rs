#[idempotent(when = is_payment)]
async fn handler(body: String) -> String {
    body
}
