#[cfg(feature = "x")]
fn handler(
    _: ::idempotent_runtime::__private::Placeholder<Method>,
    __call: ::idempotent_runtime::__private::FromRouter<
        (Method, String),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(method: Method, text: String) -> String {
        method.to_string()
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
#[cfg(not(feature = "x"))]
fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (Method,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(method: Method) -> String {
        method.to_string()
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
