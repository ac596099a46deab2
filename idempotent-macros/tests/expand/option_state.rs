#[idempotent(state = App)]
async fn handler(body: String) -> String {
    body
}
