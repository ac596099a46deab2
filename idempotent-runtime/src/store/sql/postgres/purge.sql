-- Only past expiry and not a live lease (contract, rule 6). Starts at `from`, in microseconds since 1970: deleted rows stay
-- in the index until the table is vacuumed, and each batch would scan all of them. Returns how many rows were deleted,
-- and the expiry from which on there may be more: that of the last row of a full batch, or the current time.
--
-- The rows are chosen and locked once (an array, because a subquery could be run again and delete more than the limit).
-- Rows that another transaction has locked are skipped.
-- The statement's start time is a constant that the index can be searched by, which `clock_timestamp()` is not; it is
-- earlier, so it deletes nothing too soon.
with purged as (
    delete from {table}
    where store_key = any (array(
        select store_key
        from {table}
        where expires_at >= timestamptz 'epoch' + {from}::bigint * interval '1 microsecond'
            and expires_at <= statement_timestamp()
            and (state <> 0 or lease_until <= statement_timestamp())
        order by expires_at
        limit {limit}::bigint
        for update skip locked
    ))
    returning expires_at
)
select
    count(*),
    (extract(epoch from case when count(*) = {limit} then max(expires_at) else statement_timestamp() end) * 1000000)::bigint
from purged
