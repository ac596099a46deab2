-- Only past expiry and not a live lease (contract, rule 6). From $2 on, in microseconds since 1970: what was deleted
-- before stays in the index until the table is vacuumed, and each batch would pass all of it. Gives how many were
-- deleted, and from where on there may be more: the last of a full batch, or this moment.
--
-- The rows are chosen and locked once (an array, where a subquery could be run again and delete more than the limit),
-- without waiting for those that another process purges or somebody uses; locked, they stay where they are, and need
-- no second search. The statement's own time is a constant that the index can be searched by, which
-- `clock_timestamp()` is not; being earlier, it deletes nothing too soon.
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
