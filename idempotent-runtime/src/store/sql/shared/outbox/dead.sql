select
    {int seq}, message_id, topic, payload, {int attempts}, {since created_at}, {since due_at}, last_error
from {outbox}
where state = 2 and seq > {from}
order by seq
limit {limit}
