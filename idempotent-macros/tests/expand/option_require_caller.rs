#[idempotent(require_caller)]
async fn handler(body: String) -> String {
    body
}
