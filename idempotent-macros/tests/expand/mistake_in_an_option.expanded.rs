fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (Json<u32>,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(Json(n): Json<u32>) -> String {
        n.to_string()
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new().required(true) },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
::core::compile_error! {
    "unknown option `tll`: did you mean `ttl`?"
}
