-- Fenced by the token, not by time: a late completion by the current token is applied.
update {table}
set state = {state}, response = {response}, expires_at = {now + ttl}
where {held}
