-- How many records the batch that starts at `from` looks at, the time of the last of them, and the current time; times in
-- microseconds since 1970. Locks nothing, and counts also rows that the purge will skip.
select
    count(*),
    timestampdiff(microsecond, timestamp('1970-01-01'), max(purge_at)),
    timestampdiff(microsecond, timestamp('1970-01-01'), utc_timestamp(6))
from (
    select purge_at
    from {table}
    where purge_at >= timestamp('1970-01-01') + interval {from} microsecond and purge_at <= utc_timestamp(6)
    order by purge_at
    limit {limit}
) as batch
