-- Contract, rules 1 and 3. The writer holds the write lock and has just read that the key has no record.
insert into {table} (store_key, fingerprint, token, attempt, state, lease_until, expires_at, trace_id)
values (?1, ?2, ?3, 1, 0, ?4, ?5, ?6)
