fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        ::idempotent_runtime::__private::UseInnerToCallDirectlyOrPutDebugHandlerBelow,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler() {}
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
