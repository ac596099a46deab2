-- One page. Reads no response: its size stands beside it.
select
    {int state}, fingerprint, token, {int attempt}, {left lease_until}, {left expires_at}, trace_id, null,
    tx_token, endpoint, {since created_at}, {since completed_at}, store_key, {int coalesce(response_bytes, 0)}
from {table}
where
    store_key > {after} and store_key >= {lowest} and store_key <= {highest}
    and (expires_at > {now} or (state = 0 and lease_until > {now}))
    and ({kind} < 0 or {kind} = case when state <> 0 then state when lease_until <= {now} then 3 else 0 end)
    and ({endpoint} is null or endpoint = {endpoint})
    and (created_at is null or {left created_at} <= {age})
order by store_key
limit {limit}
