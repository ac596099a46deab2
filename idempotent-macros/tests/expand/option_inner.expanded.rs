fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (String,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            plain,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
///The plain function of an `#[idempotent]` handler.
async fn plain(body: String) -> String {
    body
}
