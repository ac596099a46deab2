-- Delivered messages say when to delete them. The rows are chosen in a table of their own, since MySQL deletes from no table
-- that it reads.
delete from {outbox}
where seq in (
    select chosen.seq
    from (select seq from {outbox} where state = 1 and due_at <= {now} order by due_at limit {limit}) as chosen
)
