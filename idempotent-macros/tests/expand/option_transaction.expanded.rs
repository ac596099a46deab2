fn handler(
    _: ::idempotent_runtime::__private::Placeholder<Transaction<Postgres>>,
    __call: ::idempotent_runtime::__private::FromRouter<
        (Transaction<Postgres>, String),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(mut tx: Transaction<Postgres>, body: String) -> String {
        body
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new().transaction(true) },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
