/// Creates a payment.
#[cfg(doc)]
pub async fn create_payment(
    State(app): State<App>,
    Json(payment): Json<NewPayment>,
) -> Result<(StatusCode, Json<Payment>), AppError> {
    ::core::unreachable!()
}
/// Creates a payment.
#[cfg(not(doc))]
pub fn create_payment(
    _: ::idempotent_runtime::__private::Placeholder<State<App>>,
    __call: ::idempotent_runtime::__private::FromRouter<
        (State<App>, Json<NewPayment>),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn create_payment(
        State(app): State<App>,
        Json(payment): Json<NewPayment>,
    ) -> Result<(StatusCode, Json<Payment>), AppError> {
        let payment = app.create(payment).await?;
        Ok((StatusCode::CREATED, Json(payment)))
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const {
            &::idempotent_runtime::__private::Policy::new()
                .ttl(::idempotent_runtime::__private::Duration::from_millis(86400000u64))
                .wait(true)
        },
        |__arguments| ::idempotent_runtime::__private::respond(
            create_payment,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
