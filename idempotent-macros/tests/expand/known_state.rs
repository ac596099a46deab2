#[idempotent(state = App)]
async fn handler(State(app): State<App>, Json(n): Json<u32>) -> impl IntoResponse {
    app.enter(n).await
}
