-- Fenced by the token, not by time: a late completion by the current token is applied.
update {table}
set state = ?3, response = ?4, expires_at = ?5
where store_key = ?1 and token = ?2 and state = 0
