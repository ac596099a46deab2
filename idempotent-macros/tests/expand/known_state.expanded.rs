fn handler(
    _: ::idempotent_runtime::__private::Placeholder<State<App>>,
    __call: ::idempotent_runtime::__private::OnlyInARouterWithState<
        App,
        (State<App>, Json<u32>),
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(State(app): State<App>, Json(n): Json<u32>) -> impl IntoResponse {
        app.enter(n).await
    }
    ::idempotent_runtime::__private::run_handler(
        __call
            .extracting((
                ::idempotent_runtime::__private::part::<App, State<App>, _>(),
                ::idempotent_runtime::__private::last::<App, Json<u32>, _>(),
            )),
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
