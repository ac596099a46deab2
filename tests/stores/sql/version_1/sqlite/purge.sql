-- Only past expiry and not a live lease (contract, rule 6). By the index, so that unexpired records cost nothing.
delete from {table}
where rowid in (
    select rowid
    from {table}
    where expires_at <= ?1 and (state <> 0 or lease_until <= ?1)
    order by expires_at
    limit ?2
)
