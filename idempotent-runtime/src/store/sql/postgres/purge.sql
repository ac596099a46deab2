-- Only past expiry and not a live lease (contract, rule 6).
--
-- The rows are chosen and locked once (an array, where a subquery could be run again and delete more than the limit),
-- without waiting for those that another process purges or somebody uses. The statement's own time is a constant that
-- the index can be searched by, which `clock_timestamp()` is not; being earlier, it deletes nothing too soon.
delete from {table}
where store_key = any (array(
    select store_key
    from {table}
    where expires_at <= statement_timestamp() and (state <> 0 or lease_until <= statement_timestamp())
    order by expires_at
    limit $1
    for update skip locked
))
