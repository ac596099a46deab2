-- Only past expiry and not a live lease (contract, rule 6). By the index, so that records that are not due cost nothing.
delete from {table}
where rowid in (
    select chosen.id
    from (
        select rowid as id, expires_at, state, lease_until
        from {table}
        where purge_at <= {now}
        order by purge_at
        limit {limit}
    ) as chosen
    where chosen.expires_at <= {now} and (chosen.state <> 0 or chosen.lease_until <= {now})
)
