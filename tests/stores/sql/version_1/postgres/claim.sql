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
        state, fingerprint, token, attempt, trace_id, response,
        (extract(epoch from lease_until - clock_timestamp()) * 1000000)::bigint as lease_left,
        (extract(epoch from expires_at - clock_timestamp()) * 1000000)::bigint as expires_left
    from {table}
    where store_key = $1
),
won as (
    insert into {table} as held
        (store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id)
    select
        $1::bytea, $2::bytea, $3::bytea, 1, 0,
        clock_timestamp() + $4::bigint * interval '1 microsecond',
        clock_timestamp() + ($4 + $5::bigint) * interval '1 microsecond',
        $7::bytea
    where not exists (
        select from seen
        where not (
            (state = 0 and token = $3)
            or (expires_left <= 0 and (state <> 0 or lease_left <= 0))
            or (state = 0 and token = $6::bytea and lease_left <= 0 and fingerprint = $2)
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
        response = null
    where
        -- the claim's own lease, from a first acquire whose reply was lost
        (held.state = 0 and held.token = excluded.token)
        -- expired
        or (held.expires_at <= clock_timestamp() and (held.state <> 0 or held.lease_until <= clock_timestamp()))
        -- the lapsed lease that is to be taken over, and no other
        or (
            held.state = 0 and held.token = $6
            and held.lease_until <= clock_timestamp() and held.fingerprint = excluded.fingerprint
        )
    returning attempt
)
select 0::bigint, $2, $3, attempt::bigint, $4, $4 + $5, $7, null::bytea, true
from won
union all
select state::bigint, fingerprint, token, attempt::bigint, lease_left, expires_left, trace_id, response, false
from seen
where not exists (select from won)
