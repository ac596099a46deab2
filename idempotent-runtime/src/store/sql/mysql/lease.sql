-- A new lease of a record that has expired or lapsed. Only here the token changes and the attempt rises. A
-- compare-and-swap: of many contenders that read the same token, one changes it.
update {table}
set
    fingerprint = {fingerprint}, token = {token}, attempt = attempt + 1, state = 0,
    lease_until = {now + lease}, expires_at = {now + lease + ttl},
    trace_id = {trace_id}, response = null
where
    store_key = {key} and token = {found}
    and (
        -- the lapsed lease that is to be taken over, and no other
        (state = 0 and lease_until <= {now} and token = {take_over} and fingerprint = {fingerprint})
        -- expired
        or (expires_at <= {now} and (state <> 0 or lease_until <= {now}))
    )
