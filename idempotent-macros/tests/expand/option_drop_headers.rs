#[idempotent(drop_headers("X-Served-By"))]
async fn handler(body: String) -> String {
    body
}
