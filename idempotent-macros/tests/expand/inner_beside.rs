/// Pays.
#[idempotent(inner = pay_inner)]
#[instrument]
pub(crate) async fn pay(Json(n): Json<u32>) -> String {
    n.to_string()
}
