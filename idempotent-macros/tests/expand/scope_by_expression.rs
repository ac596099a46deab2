#[idempotent(scope = scope::header("x-account"))]
async fn handler(body: String) -> String {
    body
}
