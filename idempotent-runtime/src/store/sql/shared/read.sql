-- Another request learns nothing of the response, so it is not fetched for one.
select
    {int state}, fingerprint, token, {int attempt}, {left lease_until}, {left expires_at}, trace_id,
    case when {fingerprint} is null or fingerprint = {fingerprint} then response end,
    tx_token, endpoint, {since created_at}, {since completed_at}
from {table}
where store_key = {key}
