/// Pays.
#[cfg(doc)]
pub(crate) async fn pay(Json(n): Json<u32>) -> String {
    ::core::unreachable!()
}
/// Pays.
#[cfg(not(doc))]
pub(crate) fn pay(
    __call: ::idempotent_runtime::__private::FromRouter<
        (Json<u32>,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            pay_inner,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
/// Pays.
#[instrument]
pub(crate) async fn pay_inner(Json(n): Json<u32>) -> String {
    n.to_string()
}
