#[idempotent(caller = CurrentUser)]
async fn handler(body: String) -> String {
    body
}
