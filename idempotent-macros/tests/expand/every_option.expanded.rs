fn handler(
    __call: ::idempotent_runtime::__private::FromRouter<(Json<u32>,), State<Idempotency>>,
) -> ::idempotent_runtime::__private::HandlerFuture {
    async fn handler(Json(n): Json<u32>) -> Json<u32> {
        Json(n)
    }
    ::idempotent_runtime::__private::run_handler(
        __call,
        const {
            &::idempotent_runtime::__private::Policy::new()
                .name("pay")
                .ttl(::idempotent_runtime::__private::Duration::from_millis(86400000u64))
                .wait(true)
                .wait_timeout(
                    ::idempotent_runtime::__private::Duration::from_millis(30000u64),
                )
                .lease(::idempotent_runtime::__private::Duration::from_millis(30000u64))
                .max_lifetime(
                    ::idempotent_runtime::__private::Duration::from_millis(900000u64),
                )
                .on_crash(
                    ::idempotent_runtime::__private::OnCrash::Recover(|crash| ::idempotent_runtime::__private::recovery(
                        find_out,
                        crash,
                    )),
                )
                .required(true)
                .header("x-key")
                .strict(true)
                .uuid(true)
                .when(|parts| ::idempotent_runtime::__private::when(is_payment, parts))
                .scope(|parts| ::idempotent_runtime::__private::scope(tenant_of, parts))
                .fingerprint(
                    ::idempotent_runtime::__private::FingerprintRule::new()
                        .headers(&["x-currency"])
                        .ignore_query()
                        .json(),
                )
                .drop_headers(&["x-served-by"])
                .cache(::idempotent_runtime::__private::Cache::NoServerErrors)
                .release(&[404u16, 503u16])
                .max_body(65536usize)
                .max_response(1048576usize)
        },
        |__arguments| ::idempotent_runtime::__private::respond(
            handler,
            __arguments,
            ::idempotent_runtime::__private::into_response,
        ),
    )
}
