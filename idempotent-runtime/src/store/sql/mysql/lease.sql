-- A new lease of a record that has expired or lapsed. Only here the token changes and the attempt rises. A
-- compare-and-swap: of many contenders that read the same token, one changes it. The server assigns from left to right, so
-- the columns that the first assignment reads come after it.
update {table}
set
    -- A record that has expired is a new one.
    created_at = if(expires_at <= {now} and (state <> 0 or lease_until <= {now}), {now}, created_at),
    -- A take-over keeps the log of the steps, which begins with the token that appended. An expired record has none.
    steps = if(
        state = 0 and expires_at > {now} and substr(steps, 1, 16) = token, concat({token}, substr(steps, 17)), null
    ),
    fingerprint = {fingerprint}, token = {token}, attempt = attempt + 1, state = 0,
    lease_until = {now + lease}, expires_at = {now + lease + ttl}, purge_at = {now + ttl},
    trace_id = {trace_id}, tx_token = {tx_token}, endpoint = {endpoint},
    response = null, response_bytes = null, completed_at = null
where
    store_key = {key} and token = {found}
    and (
        -- the lapsed lease that is to be taken over, and no other
        (state = 0 and lease_until <= {now} and token = {take_over} and fingerprint = {fingerprint})
        -- expired
        or (expires_at <= {now} and (state <> 0 or lease_until <= {now}))
    )
