#[idempotent(release(404, 503))]
async fn handler(body: String) -> String {
    body
}
