-- A table with row ids, although its key is a primary key: in a table without row ids, large responses are stored
-- between the keys and slow down every search. The response is the last column, so that reading the others does not
-- follow its overflow pages.
create table {table} (
    store_key blob not null primary key check (length(store_key) = 32),
    fingerprint blob not null,
    token blob not null,
    attempt integer not null,
    -- 0 in flight, 1 completed, 2 tombstone
    state integer not null,
    -- Microseconds since 1970, by the clock of this machine.
    lease_until integer not null,
    expires_at integer not null,
    trace_id blob,
    response blob
);
-- For the purge: its work is proportional to what has expired.
create index {index} on {table} (expires_at);
