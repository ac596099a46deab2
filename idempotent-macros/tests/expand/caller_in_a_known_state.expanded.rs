fn handler(
    __call: ::idempotent_runtime::__private::OnlyInARouterWithState<App, (State<App>,)>,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(State(app): State<App>) -> String {
        app.name()
    }
    ::idempotent_runtime::__private::run_handler(
        __call
            .engine(::idempotent_runtime::__private::engine::<App, State<Idempotency>>)
            .caller(::idempotent_runtime::__private::caller_in::<App, CurrentUser, _>())
            .extracting((
                ::idempotent_runtime::__private::last::<App, State<App>, _>(),
            )),
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
