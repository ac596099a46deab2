#[idempotent(keep_headers("Location"))]
async fn handler(body: String) -> String {
    body
}
