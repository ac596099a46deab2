-- A column has any type in SQLite: a time that is no number is not one that this crate stored.
select
    state, fingerprint, token, attempt,
    case when typeof(lease_until) = 'integer' then lease_until - ?2 else lease_until end,
    case when typeof(expires_at) = 'integer' then expires_at - ?2 else expires_at end,
    trace_id, response
from {table}
where store_key = ?1
