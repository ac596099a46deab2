update {table}
set lease_until = ?3, expires_at = max(expires_at, ?4)
where store_key = ?1 and token = ?2 and state = 0
