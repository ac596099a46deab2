fn handler(
    _: facade::idempotent_runtime::__private::ty!(Placeholder < Method >),
    __call: facade::idempotent_runtime::__private::ty!(
        FromRouter < (Method, Json < u32 >,),
        facade::idempotent_runtime::__private::ty!(AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly)
        >
    ),
) -> impl ::core::future::Future<
    Output = facade::idempotent_runtime::__private::ty!(Response),
> + ::core::marker::Send {
    async fn handler(method: Method, Json(n): Json<u32>) -> Json<u32> {
        Json(n)
    }
    facade::idempotent_runtime::__private::within!(
        __private, __private::run_handler(__call, const { & __private::Policy::new()
        .on_crash(__private::OnCrash::Recover(| crash | __private::recovery(find_out,
        crash))) }, | __arguments | __private::respond(handler, __arguments,
        __private::into_response),)
    )
}
