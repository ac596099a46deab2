-- Counts by state.
select {int kind}, {int count(*)}, {int sum(bytes)}
from (
    select case when state <> 0 then state when lease_until <= {now} then 3 else 0 end as kind, coalesce(response_bytes, 0) as bytes
    from {table}
    where store_key > {after} and store_key <= {highest} and (expires_at > {now} or (state = 0 and lease_until > {now}))
) as counted
group by kind
