fn handler(
    __call: ::idempotent_runtime::__private::OnlyInARouterWithState<App, (String,)>,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(body: String) -> String {
        body
    }
    ::idempotent_runtime::__private::run_handler(
        __call.extracting((::idempotent_runtime::__private::last::<App, String, _>(),)),
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
