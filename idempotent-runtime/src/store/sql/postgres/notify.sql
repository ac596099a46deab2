-- Many keys in one transaction, because the server commits transactions that notify one at a time.
select pg_notify($1, payload)
from unnest($2::text[]) as payload
