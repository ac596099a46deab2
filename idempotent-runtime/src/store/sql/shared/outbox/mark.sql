-- Fenced by the token of the claim, not by time: a late mark by the current claim is applied.
update {outbox}
set
    state = {state}, due_at = {now + ttl}, last_error = coalesce({error}, last_error),
    attempts = case when {attempt} < 0 then attempts else {attempt} end
where seq = {seq} and claim = {token} and state in (0, {state})
