#[idempotent(max_response = "4MiB")]
async fn handler(body: String) -> String {
    body
}
