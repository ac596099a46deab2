-- Contract, rules 1, 3 and 4: one step decides, in one round trip whether the claim succeeds or not.
--
-- `seen` reads; `won` writes, and only if the key may be free according to what `seen` read. A replay therefore writes
-- nothing: an upsert alone would lock the row and make every replay wait for a flush.
--
-- The read decides nothing else. The upsert checks the newest version of the row again, under its lock; only its
-- condition makes an owner. If the row changed since it was read, the upsert does not apply, and the statement returns
-- a row that looks free, or no row at all if the row was inserted since (6 of 32,000 races). Then the store repeats
-- the statement, whose new snapshot contains the change.
with seen as materialized (
    select
        state, fingerprint, token, attempt, trace_id, tx_token,
        -- Another request learns nothing of the response, so it is not fetched for one.
        case when fingerprint = {fingerprint} then response end as response,
        {left lease_until} as lease_left,
        {left expires_at} as expires_left
    from {table}
    where store_key = {key}
),
won as (
    insert into {table} as held (
        store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id,
        purge_at, tx_token, endpoint, created_at
    )
    select
        {key}::bytea, {fingerprint}::bytea, {token}::bytea, 1, 0, {now + lease}, {now + lease + ttl}, {trace_id}::bytea,
        {now + ttl}, {tx_token}::bytea, {endpoint}::text, {now}
    where not exists (
        select from seen
        where not (
            (state = 0 and token = {token})
            or (expires_left <= 0 and (state <> 0 or lease_left <= 0))
            -- not `=`: without a lease to take over that is unknown, and the upsert would lock the row for nothing
            or (state = 0 and token is not distinct from {take_over}::bytea and lease_left <= 0 and fingerprint = {fingerprint})
        )
    )
    on conflict (store_key) do update set
        fingerprint = excluded.fingerprint,
        token = excluded.token,
        attempt = held.attempt + case when held.state = 0 and held.token = excluded.token then 0 else 1 end,
        state = 0,
        lease_until = excluded.lease_until,
        -- A repeated acquire renews, and a renewal never shortens the expiry.
        expires_at = greatest(
            excluded.expires_at,
            case when held.state = 0 and held.token = excluded.token then held.expires_at end
        ),
        trace_id = excluded.trace_id,
        response = null,
        response_bytes = null,
        -- A take-over keeps the log of the steps, which begins with the token that appended. An expired record has none.
        steps = case
            when held.state = 0 and held.token = excluded.token then held.steps
            when held.state = 0 and held.expires_at > {now} and substr(held.steps, 1, 16) = held.token
            then excluded.token || substr(held.steps, 17)
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
        -- the claim's own lease, from a first acquire whose reply was lost
        (held.state = 0 and held.token = excluded.token)
        -- expired
        or (held.expires_at <= {now} and (held.state <> 0 or held.lease_until <= {now}))
        -- the lapsed lease that is to be taken over, and no other
        or (
            held.state = 0 and held.token = {take_over}
            and held.lease_until <= {now} and held.fingerprint = excluded.fingerprint
        )
    returning attempt
)
select
    0::bigint, {fingerprint}, {token}, attempt::bigint, 0::bigint, 0::bigint, null::bytea, null::bytea, null::bytea,
    1::bigint
from won
union all
select
    state::bigint, fingerprint, token, attempt::bigint, lease_left, expires_left, trace_id, response, tx_token,
    0::bigint
from seen
where not exists (select from won)
