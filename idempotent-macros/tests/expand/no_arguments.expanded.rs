fn handler(
    call: ::idempotent_runtime::__private::Call<
        ::idempotent_runtime::__private::DebugHandlerBelongsBelow,
    >,
) -> ::idempotent_runtime::__private::Running {
    async fn handler() {}
    ::idempotent_runtime::__private::run_handler(
        call,
        const { &::idempotent_runtime::__private::Policy::new() },
        ::core::concat!(::core::module_path!(), "::", "handler"),
        |arguments| ::idempotent_runtime::__private::respond(
            handler,
            arguments,
            ::idempotent_runtime::__private::answer,
        ),
    )
}
