#[idempotent]
fn handler(text: String) -> BoxFuture<'static, Result<String, StatusCode>> {
    Box::pin(async move { Ok(text) })
}
