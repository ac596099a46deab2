fn handler<T: Ledger + ::core::marker::Send + 'static, U, const N: usize>(
    __call: ::idempotent_runtime::__private::FromRouter<
        (State<T>,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture
where
    U: Serialize,
    U: ::core::marker::Send + 'static,
{
    async fn handler<T: Ledger, U, const N: usize>(
        State(ledger): State<T>,
    ) -> Json<[U; N]>
    where
        U: Serialize,
    {
        ledger.entries().await
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler::<T, U, N>,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
