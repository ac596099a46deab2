fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (String,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
        ::idempotent_runtime::__private::CallerIs<CurrentUser>,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(body: String) -> String {
        body
    }
    ::idempotent_runtime::__private::run_handler(
        ::idempotent_runtime::__private::caller::<CurrentUser, _>(__call),
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
