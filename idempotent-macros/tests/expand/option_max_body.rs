#[idempotent(max_body = "64KiB")]
async fn handler(body: String) -> String {
    body
}
