#[idempotent(engine = State<Idempotency>)]
async fn handler(body: String) -> String {
    body
}
