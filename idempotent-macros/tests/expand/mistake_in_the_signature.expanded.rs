fn handler(
    _: ::idempotent_runtime::__private::FromRouter<()>,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(name: &str) -> String {
        name.to_owned()
    }
    ::core::unreachable!()
}
::core::compile_error! {
    "`&str` borrows from nobody: a handler owns what its extractors give it, as in `String` or `State<Arc<T>>`"
}
