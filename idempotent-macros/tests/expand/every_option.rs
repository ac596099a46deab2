#[idempotent(
    name = "pay",
    ttl = "24h",
    wait = true,
    wait_timeout = "30s",
    lease = "30s",
    max_lifetime = "15m",
    on_crash = find_out,
    required,
    header = "X-Key",
    strict,
    uuid,
    when = is_payment,
    scope = tenant_of,
    drop_headers("x-served-by"),
    fingerprint(headers("x-currency"), json, ignore_query),
    cache = "no-server-errors",
    release(404, 503),
    max_body = "64KiB",
    max_response = "1MiB",
    engine = State<Idempotency>,
)]
async fn handler(Json(n): Json<u32>) -> Json<u32> {
    Json(n)
}
