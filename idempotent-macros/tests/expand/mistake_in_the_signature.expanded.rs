fn handler(
    _: ::idempotent_runtime::__private::FromRouter<()>,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(name: &str) -> String {
        name.to_owned()
    }
    ::core::unreachable!()
}
::core::compile_error! {
    "a handler cannot take the reference `&str`: extractors return owned values, so take one, as in `String` or `State<Arc<T>>`"
}
