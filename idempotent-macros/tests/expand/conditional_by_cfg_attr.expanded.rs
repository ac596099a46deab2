#[cfg(any(not(feature = "x"), unix))]
fn handler(
    _: ::idempotent_runtime::__private::Placeholder<Method>,
    __call: ::idempotent_runtime::__private::FromRouter<
        (Method, String),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(
        #[cfg_attr(feature = "x", allow(unused))]
        method: Method,
        text: String,
    ) -> String {
        text
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
#[cfg(not(any(not(feature = "x"), unix)))]
fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<
        (String,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(text: String) -> String {
        text
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
