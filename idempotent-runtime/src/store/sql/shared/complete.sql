-- Fenced by the token, not by time: a late completion by the current token is applied. It changes no indexed column, so
-- that PostgreSQL updates no index and the others rewrite none.
update {table}
set
    state = {state}, response = {response}, response_bytes = {bytes},
    expires_at = {now + ttl}, completed_at = {now}, steps = null
where {held}
