select
    cast(state as signed), fingerprint, token, cast(attempt as signed),
    timestampdiff(microsecond, utc_timestamp(6), lease_until),
    timestampdiff(microsecond, utc_timestamp(6), expires_at),
    trace_id, response
from {table}
where store_key = ?
