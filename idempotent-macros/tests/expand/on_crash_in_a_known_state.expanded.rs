fn handler(
    __call: ::idempotent_runtime::__private::OnlyInARouterWithState<App, (State<App>,)>,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(State(app): State<App>) -> String {
        app.name()
    }
    ::idempotent_runtime::__private::run_handler(
        __call
            .recovering(|crash, state| ::idempotent_runtime::__private::recovery_in(
                state,
                find_out,
                crash,
            ))
            .extracting((
                ::idempotent_runtime::__private::last::<App, State<App>, _>(),
            )),
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
