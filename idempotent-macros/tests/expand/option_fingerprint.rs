#[idempotent(fingerprint(headers("x-currency", "X-Plan"), json, ignore_query))]
async fn handler(body: String) -> String {
    body
}
