-- The expiry of the last record in the batch that starts at `from`, and the current time, both in
-- microseconds since 1970. Locks nothing, and counts also rows that the deletion will skip.
select
    timestampdiff(microsecond, timestamp('1970-01-01'), max(expires_at)),
    timestampdiff(microsecond, timestamp('1970-01-01'), utc_timestamp(6))
from (
    select expires_at
    from {table}
    where expires_at >= timestamp('1970-01-01') + interval {from} microsecond and expires_at <= utc_timestamp(6)
    order by expires_at
    limit {limit}
) as batch
