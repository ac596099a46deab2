-- Only past expiry and not a live lease (contract, rule 6). Starts at `from`, in microseconds since 1970: deleted rows
-- stay in the index until the table is vacuumed, and each batch would scan all of them. Returns how many rows it deleted,
-- how many it looked at, and the time from which on there may be more: that of the last row of a full batch, or the
-- current time.
--
-- `purge_at` is when to look, not when the record expires: a row that is not due yet is moved on to when it may be. The
-- rows are chosen and locked once. Rows that another transaction has locked are skipped. The statement's start time is a
-- constant that the index can be searched by, which `clock_timestamp()` is not; it is earlier, so it deletes nothing too
-- soon.
with due as materialized (
    select store_key, purge_at, greatest(expires_at, case when state = 0 then lease_until end) as end_at
    from {table}
    where purge_at >= timestamptz 'epoch' + {from}::bigint * interval '1 microsecond'
        and purge_at <= statement_timestamp()
    order by purge_at
    limit {limit}::bigint
    for update skip locked
),
purged as (
    delete from {table}
    where store_key = any (array(select store_key from due where end_at <= statement_timestamp()))
    returning 1
),
moved as (
    update {table} as held
    set purge_at = due.end_at
    from due
    where held.store_key = due.store_key and due.end_at > statement_timestamp()
    returning 1
)
select
    (select count(*) from purged),
    count(*),
    (extract(epoch from case when count(*) = {limit} then max(purge_at) else statement_timestamp() end) * 1000000)::bigint,
    (select count(*) from moved)
from due
