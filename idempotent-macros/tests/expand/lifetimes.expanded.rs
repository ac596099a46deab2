fn handler<T: 'static + ::core::marker::Send + 'static>(
    _: ::idempotent_runtime::__private::Placeholder<Agent<'static, T>>,
    __call: ::idempotent_runtime::__private::FromRouter<
        (Agent<'static, T>, Json<Cow<'static, str>>),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler<'a, 'b: 'a, T: 'a>(
        agent: Agent<'a, T>,
        body: Json<Cow<'_, str>>,
    ) -> Cow<'a, str>
    where
        'b: 'a,
    {
        agent.name()
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler::<T>,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
