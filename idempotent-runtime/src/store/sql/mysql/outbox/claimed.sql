-- What the claim has taken: each has a token of its own.
select
    {int seq}, message_id, topic, payload, {int attempts}, {since created_at}, {since due_at}, last_error
from {outbox}
where claim = {token} and state = 0
order by seq
