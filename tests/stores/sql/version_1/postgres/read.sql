select
    state::bigint, fingerprint, token, attempt::bigint,
    (extract(epoch from lease_until - clock_timestamp()) * 1000000)::bigint,
    (extract(epoch from expires_at - clock_timestamp()) * 1000000)::bigint,
    trace_id, response
from {table}
where store_key = $1
