#[idempotent(crate = facade::idempotent_runtime, on_crash = find_out)]
async fn handler(method: Method, Json(n): Json<u32>) -> Json<u32> {
    Json(n)
}
