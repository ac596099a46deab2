-- Contract, rules 1, 3 and 4: two statements in one message, so that winning and losing cost one round trip alike.
-- The store puts in digits for the names in braces; a message of two statements takes no parameters.
--
-- What decides is the token that is read back, after the insert is committed. The number of affected rows does not:
-- with the flag that sqlx connects with, it is one for a row that was there already. Nor does `ignore` hide anything:
-- whatever it ignored, the row that is read back has another token, or is not there.
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
    -- Of the insert: whether this lease is new, or one that a lost reply told of and that is to be renewed.
    cast(row_count() = 1 as signed)
from {table}
where store_key = {key}
