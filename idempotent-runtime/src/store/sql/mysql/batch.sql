-- When the last of a batch of expired records expires that begins at the first parameter, and the present, both in
-- microseconds since 1970. It locks nothing, and counts also what the deletion will pass over.
select
    timestampdiff(microsecond, timestamp('1970-01-01'), max(expires_at)),
    timestampdiff(microsecond, timestamp('1970-01-01'), utc_timestamp(6))
from (
    select expires_at
    from {table}
    where expires_at >= timestamp('1970-01-01') + interval ? microsecond and expires_at <= utc_timestamp(6)
    order by expires_at
    limit ?
) as batch
