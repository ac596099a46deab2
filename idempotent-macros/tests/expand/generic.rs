#[idempotent]
async fn handler<T: Ledger, U, const N: usize>(State(ledger): State<T>) -> Json<[U; N]>
where
    U: Serialize,
{
    ledger.entries().await
}
