-- A new lease of a record that has expired or lapsed. Only here the token changes and the attempt rises.
update {table}
set fingerprint = ?2, token = ?3, attempt = attempt + 1, state = 0, lease_until = ?4, expires_at = ?5,
    trace_id = ?6, response = null
where store_key = ?1 and token = ?7
