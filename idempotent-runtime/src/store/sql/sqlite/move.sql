-- `purge_at` is when to look, not when the record expires: what was looked at too soon is moved on to when it may be due.
update {table}
set purge_at = case when state = 0 and lease_until > expires_at then lease_until else expires_at end
where rowid in (select rowid from {table} where purge_at <= {now} order by purge_at limit {limit})
    and case when state = 0 and lease_until > expires_at then lease_until else expires_at end > {now}
