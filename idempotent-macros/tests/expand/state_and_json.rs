/// Creates a payment.
#[idempotent(ttl = "24h", wait = true)]
pub async fn create_payment(
    State(app): State<App>,
    Json(payment): Json<NewPayment>,
) -> Result<(StatusCode, Json<Payment>), AppError> {
    let payment = app.create(payment).await?;
    Ok((StatusCode::CREATED, Json(payment)))
}
