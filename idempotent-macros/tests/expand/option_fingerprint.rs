#[idempotent(fingerprint(headers("X-Plan"), ignore("/sent_at"), form, ignore_query("nonce")))]
async fn handler(body: String) -> String {
    body
}
