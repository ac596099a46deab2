fn handler(
    __call: ::idempotent_runtime::__private::OnlyInARouterWithState<
        App,
        ::idempotent_runtime::__private::UseInnerToCallDirectlyOrPutDebugHandlerBelow,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler() -> StatusCode {
        StatusCode::CREATED
    }
    ::idempotent_runtime::__private::run_handler(
        __call
            .engine(::idempotent_runtime::__private::engine::<App, State<Idempotency>>)
            .extracting(()),
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
