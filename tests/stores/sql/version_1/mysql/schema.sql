-- Binary columns, so that no collation makes two keys equal. Times are UTC, whatever the session's time zone.
create table if not exists {table} (
    store_key binary(32) not null primary key,
    fingerprint binary(32) not null,
    token binary(16) not null,
    attempt int not null,
    -- 0 in flight, 1 completed, 2 tombstone
    state tinyint not null,
    lease_until datetime(6) not null,
    expires_at datetime(6) not null,
    trace_id binary(16),
    response longblob,
    -- For the purge: its work is proportional to what has expired.
    key {index} (expires_at)
) engine = InnoDB
