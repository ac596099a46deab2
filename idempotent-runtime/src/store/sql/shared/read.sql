select
    {int state}, fingerprint, token, {int attempt}, {left lease_until}, {left expires_at}, trace_id, response
from {table}
where store_key = {key}
