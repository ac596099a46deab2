-- Fenced by the token, not by time: a late completion by the current token is applied.
update {table}
set state = ?, response = ?, expires_at = utc_timestamp(6) + interval ? microsecond
where store_key = ? and token = ? and state = 0
