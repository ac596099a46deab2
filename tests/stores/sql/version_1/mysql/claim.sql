-- Contract, rules 1, 3 and 4: two statements in one message, so that a claim costs one round trip whether it succeeds
-- or not. The store inserts literals for the names in braces, because a message of two statements takes no parameters.
--
-- The token that is read back after the insert is committed decides. The number of affected rows does not: with the
-- flag that sqlx connects with, it is one also for an existing row. `ignore` hides no error: whatever it ignored, the
-- row that is read back has another token or does not exist.
insert ignore into {table}
    (store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id)
values (
    {key}, {fingerprint}, {token}, 1, 0,
    utc_timestamp(6) + interval {lease} microsecond,
    utc_timestamp(6) + interval {expiry} microsecond,
    {trace_id}
);
select
    cast(state as signed), fingerprint, token, cast(attempt as signed),
    timestampdiff(microsecond, utc_timestamp(6), lease_until),
    timestampdiff(microsecond, utc_timestamp(6), expires_at),
    trace_id, response,
    -- Of the insert: whether this lease is new, or exists since an acquire whose reply was lost and is to be renewed.
    cast(row_count() = 1 as signed)
from {table}
where store_key = {key}
