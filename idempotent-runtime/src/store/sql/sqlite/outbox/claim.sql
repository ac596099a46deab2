-- Takes the messages that are due and the first of their order. There is one writer at a time.
update {outbox}
set claim = {token}, attempts = attempts + 1, due_at = {now + lease}
where seq in (
    select message.seq
    from {outbox} as message
    where message.state = 0 and message.due_at <= {now}
        and not exists (
            select 1
            from {outbox} as earlier
            where earlier.order_key = message.order_key and earlier.state = 0 and earlier.seq < message.seq
        )
    order by message.due_at
    limit {limit}
)
returning seq, message_id, topic, payload, attempts, created_at, due_at, last_error
