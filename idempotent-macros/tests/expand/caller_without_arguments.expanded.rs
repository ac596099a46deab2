fn handler<T: Tenant + ::core::marker::Send + 'static>(
    __call: facade::runtime::__private::ty!(
        FromRouter <
        facade::runtime::__private::ty!(UseInnerToCallDirectlyOrPutDebugHandlerBelow),
        State < Idempotency >, facade::runtime::__private::ty!(CallerIs < CurrentUser < T
        > >) >
    ),
) -> impl ::core::future::Future<
    Output = facade::runtime::__private::ty!(Response),
> + ::core::marker::Send {
    async fn handler<T: Tenant>() -> StatusCode {
        StatusCode::CREATED
    }
    facade::runtime::__private::within!(
        __private, __private::run_handler(__private::caller:: < CurrentUser < T >, _ >
        (__call), const { & __private::Policy::new() }, | __arguments |
        __private::respond(handler:: < T >, __arguments, __private::into_response),)
    )
}
