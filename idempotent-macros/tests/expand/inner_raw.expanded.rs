fn r#fn(
    __call: ::idempotent_runtime::__private::FromRouter<
        (Json<u32>,),
        ::idempotent_runtime::__private::AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly,
    >,
) -> ::idempotent_runtime::__private::HandlerFuture {
    ::idempotent_runtime::__private::run_handler(
        __call,
        const { &::idempotent_runtime::__private::Policy::new() },
        |__arguments| ::idempotent_runtime::__private::respond(
            r#type,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
///The plain function of an `#[idempotent]` handler.
async fn r#type(Json(n): Json<u32>) -> String {
    n.to_string()
}
