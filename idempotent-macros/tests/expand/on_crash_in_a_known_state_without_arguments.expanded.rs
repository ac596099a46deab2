fn handler(
    __call: ::idempotent_runtime::__private::OnlyInARouterWithState<
        App,
        ::idempotent_runtime::__private::UseInnerToCallDirectlyOrPutDebugHandlerBelow,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler() {}
    ::idempotent_runtime::__private::run_handler(
        __call
            .recovering(|crash, state| ::idempotent_runtime::__private::recovery_in(
                state,
                find_out,
                crash,
            ))
            .extracting(()),
        const {
            &::idempotent_runtime::__private::Policy::new()
                .on_crash(::idempotent_runtime::__private::RECOVERED_BY_THE_HANDLER)
        },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
