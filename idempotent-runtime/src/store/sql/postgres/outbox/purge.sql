-- Delivered messages say when to delete them. By a time that the index can be searched by, which `clock_timestamp()` is not.
delete from {outbox}
where seq in (
    select seq
    from {outbox}
    where state = 1 and due_at <= statement_timestamp()
    order by due_at
    limit {limit}
    for update skip locked
)
