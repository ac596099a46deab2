fn handler(
    __call: facade::runtime::__private::ty!(
        FromRouter < (String,),
        facade::runtime::__private::ty!(AddOptionStateToSeeWhichArgumentOrInnerToCallDirectly)
        >
    ),
) -> impl ::core::future::Future<
    Output = facade::runtime::__private::ty!(Response),
> + ::core::marker::Send {
    async fn handler(body: String) -> String {
        body
    }
    facade::runtime::__private::within!(
        __private, __private::run_handler(__call, const { & __private::Policy::new() }, |
        __arguments | __private::respond(handler, __arguments,
        __private::into_response),)
    )
}
