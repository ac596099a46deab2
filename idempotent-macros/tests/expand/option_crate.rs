#[idempotent(crate = facade::runtime)]
async fn handler(body: String) -> String {
    body
}
