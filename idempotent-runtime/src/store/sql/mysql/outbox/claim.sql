-- Takes the messages that are due and the first of their order. Those that another claim is taking are skipped.
update {outbox} as message
join (
    select seq
    from {outbox} as candidate
    where state = 0 and due_at <= utc_timestamp(6)
        and not exists (
            select 1
            from {outbox} as earlier
            where earlier.order_key = candidate.order_key and earlier.state = 0 and earlier.seq < candidate.seq
        )
    order by due_at
    limit {limit}
    for update skip locked
) as due on due.seq = message.seq
set message.claim = {token}, message.attempts = message.attempts + 1, message.due_at = {now + lease}
