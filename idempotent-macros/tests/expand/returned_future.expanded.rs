fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (String,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    fn handler(text: String) -> BoxFuture<'static, Result<String, StatusCode>> {
        Box::pin(async move { Ok(text) })
    }
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
