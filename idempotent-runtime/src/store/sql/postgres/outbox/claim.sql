-- Takes the messages that are due and the first of their order. Those that another claim is taking are skipped; one that it
-- has taken since this statement began is not due any more when its lock is there.
with due as materialized (
    select seq
    from {outbox} as message
    where state = 0 and due_at <= statement_timestamp()
        and not exists (
            select 1
            from {outbox} as earlier
            where earlier.order_key = message.order_key and earlier.state = 0 and earlier.seq < message.seq
        )
    order by due_at
    limit {limit}::bigint
    for update of message skip locked
)
update {outbox} as message
set claim = {token}, attempts = message.attempts + 1, due_at = {now + lease}
from due
where message.seq = due.seq
returning
    message.seq, message_id, topic, payload, {int attempts}, {since created_at}, {since due_at}, last_error
