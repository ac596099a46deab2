#[idempotent(inner = r#type)]
async fn r#fn(Json(n): Json<u32>) -> String {
    n.to_string()
}
