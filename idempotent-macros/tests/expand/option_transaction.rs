#[idempotent(transaction)]
async fn handler(mut tx: Transaction<Postgres>, body: String) -> String {
    body
}
