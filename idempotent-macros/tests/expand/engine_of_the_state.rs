#[idempotent(engine = State<Idempotency>, state = App)]
async fn handler() -> StatusCode {
    StatusCode::CREATED
}
