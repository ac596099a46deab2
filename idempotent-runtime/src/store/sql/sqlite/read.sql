select state, fingerprint, token, attempt, lease_until - ?2, expires_at - ?2, trace_id, response
from {table}
where store_key = ?1
