#[idempotent(tll = "24h", required)]
async fn handler(Json(n): Json<u32>) -> String {
    n.to_string()
}
