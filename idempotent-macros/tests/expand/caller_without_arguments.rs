#[idempotent(caller = CurrentUser<T>, engine = State<Idempotency>, crate = facade::runtime)]
async fn handler<T: Tenant>() -> StatusCode {
    StatusCode::CREATED
}
