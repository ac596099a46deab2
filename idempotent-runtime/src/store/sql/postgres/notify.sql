-- Many keys in one transaction: transactions that notify are committed one at a time.
select pg_notify($1, payload)
from unnest($2::text[]) as payload
