-- Only past expiry and not a live lease (contract, rule 6).
--
-- The rows are chosen by the index and locked first, without waiting for those that another process purges or
-- somebody uses; the join in this order keeps the server from searching the whole table for them.
delete expired
from (
    select store_key
    from {table}
    where expires_at <= utc_timestamp(6) and (state <> 0 or lease_until <= utc_timestamp(6))
    order by expires_at
    limit ?
    for update skip locked
) as chosen
straight_join {table} as expired on expired.store_key = chosen.store_key
