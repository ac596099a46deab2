#[idempotent(caller = CurrentUser, engine = State<Idempotency>, state = App)]
async fn handler(State(app): State<App>) -> String {
    app.name()
}
