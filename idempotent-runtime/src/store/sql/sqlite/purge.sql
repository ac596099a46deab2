-- Only past expiry and not a live lease (contract, rule 6). By the index, so that unexpired records cost nothing.
delete from {table}
where rowid in (
    select rowid
    from {table}
    where expires_at <= {now} and (state <> 0 or lease_until <= {now})
    order by expires_at
    limit {limit}
)
