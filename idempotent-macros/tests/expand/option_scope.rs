#[idempotent(scope = tenant_of)]
async fn handler(body: String) -> String {
    body
}
