#[idempotent]
async fn handler(
    #[cfg_attr(feature = "x", cfg(unix), allow(unused))] method: Method,
    text: String,
) -> String {
    text
}
