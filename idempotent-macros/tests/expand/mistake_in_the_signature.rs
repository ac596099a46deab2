#[idempotent]
async fn handler(name: &str) -> String {
    name.to_owned()
}
