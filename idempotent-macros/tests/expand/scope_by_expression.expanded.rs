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
            &::idempotent_runtime::__private::Policy::new()
                .scope(|parts| {
                    static __SCOPE: ::idempotent_runtime::__private::LazyScope = ::idempotent_runtime::__private::LazyScope::new(||
                    ::idempotent_runtime::__private::scope_by(
                        scope::header("x-account"),
                    ));
                    (*__SCOPE)(parts)
                })
        },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
