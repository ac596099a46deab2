#[idempotent]
async fn handler(method: Method, #[cfg(feature = "x")] text: String) -> String {
    method.to_string()
}
