#[idempotent(key = event_id)]
async fn handler(body: String) -> String {
    body
}
