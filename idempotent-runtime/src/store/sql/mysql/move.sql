-- `purge_at` is when to look, not when the record expires: what was looked at too soon is moved on to when it may be due.
update (
    select store_key
    from {table}
    where purge_at >= timestamp('1970-01-01') + interval {from} microsecond and purge_at <= utc_timestamp(6)
    order by purge_at
    limit {limit}
    for update /*!80001 skip locked */ /*M!100600 skip locked */
) as chosen
straight_join {table} as held on held.store_key = chosen.store_key
set held.purge_at = if(held.state = 0, greatest(held.expires_at, held.lease_until), held.expires_at)
where not (held.expires_at <= utc_timestamp(6) and (held.state <> 0 or held.lease_until <= utc_timestamp(6)))
