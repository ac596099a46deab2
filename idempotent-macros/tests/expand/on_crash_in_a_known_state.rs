#[idempotent(state = App, on_crash = find_out)]
async fn handler(State(app): State<App>) -> String {
    app.name()
}
