-- Contract, rules 1 and 3: leases the key if it is free or is the claim's own. Otherwise nothing changes and no row is
-- returned. The columns have any type in SQLite: a row with other values than this crate stores is left as it is, and
-- reading it says so.
insert into {table} as held (store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id)
values (?1, ?2, ?3, 1, 0, ?4, ?5, ?6)
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
    response = null
where
    typeof(held.attempt) = 'integer' and held.attempt between 0 and 4294967294
    and typeof(held.lease_until) = 'integer' and typeof(held.expires_at) = 'integer'
    and typeof(held.state) = 'integer' and typeof(held.token) = 'blob' and length(held.token) = 16
    and typeof(held.fingerprint) = 'blob' and length(held.fingerprint) = 32
    and (
        -- the claim's own lease, from a first acquire whose reply was lost
        (held.state = 0 and held.token = excluded.token)
        -- expired
        or (held.expires_at <= ?7 and (held.state <> 0 or held.lease_until <= ?7))
        -- the lapsed lease that is to be taken over, and no other
        or (
            held.state = 0 and held.token = ?8
            and held.lease_until <= ?7 and held.fingerprint = excluded.fingerprint
        )
    )
returning attempt
