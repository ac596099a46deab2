#[idempotent(inner = Self::pay_inner)]
async fn pay<U>(Json(n): Json<U>) -> Option<Self> {
    Self::of(n)
}
