-- Only past expiry and not a live lease (contract, rule 6). Starts at $2, in microseconds since 1970: deleted rows stay
-- in the index until the table is vacuumed, and each batch would scan all of them. Returns how many rows were deleted,
-- and the expiry from which on there may be more: that of the last row of a full batch, or the current time.
--
-- The rows are chosen and locked once (an array, because a subquery could be run again and delete more than the limit).
-- Rows that another transaction has locked are skipped. A locked row does not move, so its ctid needs no second search.
-- The statement's start time is a constant that the index can be searched by, which `clock_timestamp()` is not; it is
-- earlier, so it deletes nothing too soon.
with purged as (
    delete from {table}
    where ctid = any (array(
        select ctid
        from {table}
        where expires_at >= timestamptz 'epoch' + $2 * interval '1 microsecond'
            and expires_at <= statement_timestamp()
            and (state <> 0 or lease_until <= statement_timestamp())
        order by expires_at
        limit $1
        for update skip locked
    ))
    returning expires_at
)
select
    count(*),
    (extract(epoch from case when count(*) = $1 then max(expires_at) else statement_timestamp() end) * 1000000)::bigint
from purged
