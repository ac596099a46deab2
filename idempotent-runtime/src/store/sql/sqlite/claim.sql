-- Contract, rules 1 and 3: leases the key if it is free or is the claim's own. Otherwise nothing changes and no row is
-- returned. The columns have any type in SQLite: a row with other values than this crate stores is left as it is, and
-- reading it says so.
insert into {table} as held (
    store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id,
    purge_at, tx_token, endpoint, created_at
)
values (
    {key}, {fingerprint}, {token}, 1, 0, {now + lease}, {now + lease + ttl}, {trace_id},
    {now + ttl}, {tx_token}, {endpoint}, {now}
)
on conflict (store_key) do update set
    fingerprint = excluded.fingerprint,
    token = excluded.token,
    attempt = held.attempt + case when held.state = 0 and held.token = excluded.token then 0 else 1 end,
    state = 0,
    lease_until = excluded.lease_until,
    -- A repeated acquire renews, and a renewal never shortens the expiry.
    expires_at = case
        when held.state = 0 and held.token = excluded.token then max(held.expires_at, excluded.expires_at)
        else excluded.expires_at
    end,
    trace_id = excluded.trace_id,
    response = null,
    response_bytes = null,
    -- A take-over keeps the log of the steps, which begins with the token that appended. An expired record has none.
    steps = case
        when held.state = 0 and held.token = excluded.token then held.steps
        when held.state = 0 and held.expires_at > {now} and substr(held.steps, 1, 16) = held.token
        then cast(excluded.token || substr(held.steps, 17) as blob)
    end,
    purge_at = excluded.purge_at,
    tx_token = excluded.tx_token,
    endpoint = excluded.endpoint,
    -- A record that has expired is a new one.
    created_at = case
        when held.expires_at > {now} or (held.state = 0 and (held.lease_until > {now} or held.token = excluded.token))
        then held.created_at
        else excluded.created_at
    end,
    completed_at = null
where
    typeof(held.attempt) = 'integer' and held.attempt between 0 and 4294967294
    and typeof(held.lease_until) = 'integer' and typeof(held.expires_at) = 'integer'
    and typeof(held.state) = 'integer' and typeof(held.token) = 'blob' and length(held.token) = 16
    and typeof(held.fingerprint) = 'blob' and length(held.fingerprint) = 32
    and (
        -- the claim's own lease, from a first acquire whose reply was lost
        (held.state = 0 and held.token = excluded.token)
        -- expired
        or (held.expires_at <= {now} and (held.state <> 0 or held.lease_until <= {now}))
        -- the lapsed lease that is to be taken over, and no other
        or (
            held.state = 0 and held.token = {take_over}
            and held.lease_until <= {now} and held.fingerprint = excluded.fingerprint
        )
    )
returning state, fingerprint, token, attempt, {left lease_until}, {left expires_at}, trace_id, null, tx_token, 1
