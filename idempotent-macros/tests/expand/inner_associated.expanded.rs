fn pay<U: ::core::marker::Send + 'static>(
    __call: ::idempotent_runtime::__private::FromRouter<
        (Json<U>,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            Self::pay_inner::<U>,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
///The plain function of an `#[idempotent]` handler.
async fn pay_inner<U>(Json(n): Json<U>) -> Option<Self> {
    Self::of(n)
}
