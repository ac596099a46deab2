fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (String,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(body: String) -> String {
        body
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const {
            &::idempotent_runtime::__private::Policy::new().release(&[404u16, 503u16])
        },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
