#[idempotent(fingerprint = orders::asked)]
async fn handler(body: String) -> String {
    body
}
