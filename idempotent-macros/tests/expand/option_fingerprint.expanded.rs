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
                .fingerprint(
                    ::idempotent_runtime::__private::FingerprintRule::new()
                        .headers(&["x-plan"])
                        .ignore(&["/sent_at"])
                        .ignore_query_parameters(&["nonce"])
                        .form(),
                )
        },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
